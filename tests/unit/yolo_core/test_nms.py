"""Suppression against the plain definition, computed with exact fractions."""

import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from yolo_core.evaluate.nms import by_score, nms
from yolo_core.evaluate.suppression import Suppression


def overlap(a: list[int], b: list[int]) -> Fraction:
    """IoU of two boxes of whole pixels, without rounding."""
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return Fraction(width * height, union) if union else Fraction(0)


def plain_nms(rows: torch.Tensor, conf: float, iou: str, limit: int, multi_label: bool) -> list[list[float]]:
    candidates = []
    for number, row in enumerate(rows):
        if not row.isfinite().all():
            continue
        scores = row[4] * row[5:]
        classes = range(len(scores)) if multi_label else [int(scores.argmax())]
        cx, cy, w, h = (int(value) for value in row[:4])
        box = [cx - w // 2, cy - h // 2, cx + w // 2, cy + h // 2]  # sides are even
        candidates += [(float(scores[k]), number, k, box) for k in classes if scores[k] > conf]
    kept: list[tuple] = []
    for one in sorted(candidates, key=lambda c: (-c[0], c[1], c[2])):
        if all(other[2] != one[2] or overlap(other[3], one[3]) <= Fraction(iou) for other in kept):
            kept.append(one)
    return [[*box, score, k] for score, _, k, box in kept[:limit]]


@st.composite
def decoded(draw: st.DrawFn) -> torch.Tensor:
    rows, classes = draw(st.integers(0, 40)), draw(st.integers(1, 3))
    seed, spread = draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from([4, 30]))
    rng = np.random.default_rng(seed)
    table = np.empty((rows, 5 + classes), np.float32)
    table[:, :2] = rng.integers(0, spread, (rows, 2)) + 50
    table[:, 2:4] = 2 * rng.integers(0, 12, (rows, 2))  # some are empty
    table[:, 4:] = rng.integers(0, 9, (rows, 1 + classes)) / 8  # many ties, and exact products
    broken = rng.random(table.shape) < draw(st.sampled_from([0, 0.02]))
    table[broken] = rng.choice([np.nan, np.inf, -np.inf], np.count_nonzero(broken))
    return torch.from_numpy(table)


@settings(max_examples=300)
@given(
    rows=decoded(),
    iou=st.sampled_from(["0.25", "0.5", "0.65"]),
    limit=st.sampled_from([1, 5, 300]),
    multi_label=st.booleans(),
    first=st.sampled_from([3, 8192]),
)
def test_equals_the_plain_definition(rows, iou, limit, multi_label, first):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("yolo_core.evaluate.nms.FIRST", first)
        (found,) = nms(rows[None], Suppression(0.1, float(iou), limit), multi_label)
    assert found.tolist() == plain_nms(rows, 0.1, iou, limit, multi_label)


def test_worked_example():
    # Two boxes of 10 x 10 px, 2 px apart: shared 8 x 10 = 80, union 200 - 80 = 120, IoU 0.667 > 0.65.
    a, b = [10, 10, 10, 10], [12, 10, 10, 10]
    rows = torch.tensor([[*a, 0.8, 1.0, 0.5], [*b, 1.0, 0.7, 0.1]])
    (found,) = nms(rows[None], Suppression(0.2, 0.65, 10))
    # Class 0: 0.8 (box a) beats 0.7 (box b). Class 1: 0.8 x 0.5 = 0.4 stays, 1.0 x 0.1 is under 0.2.
    assert found.tolist() == [[5, 5, 15, 15, pytest.approx(0.8), 0], [5, 5, 15, 15, pytest.approx(0.4), 1]]
    (apart,) = nms(rows[None], Suppression(0.2, 0.67, 10))
    assert [row[4] for row in apart.tolist()] == pytest.approx([0.8, 0.7, 0.4])


def test_empty_inputs_and_images_are_independent():
    rows = torch.tensor([[10, 10, 10, 10, 0.9, 0.9]])
    assert [len(found) for found in nms(torch.stack((rows, rows * 0, rows)), Suppression(0.1, 0.5, 300))] == [1, 0, 1]
    assert [found.shape for found in nms(torch.zeros(2, 0, 8), Suppression(0.1, 0.5, 300))] == [(0, 6), (0, 6)]
    assert nms(torch.zeros(1, 5, 8), Suppression(0.1, 0.5, 300), multi_label=False)[0].shape == (0, 6)


def test_rows_that_are_not_finite_are_left_out():
    good = [10.0, 10, 10, 10, 0.9, 0.9]
    rows = torch.tensor([[float("nan"), *good[1:]], [*good[:2], float("inf"), *good[3:]], good, [*good[:5], torch.nan]])
    (found,) = nms(rows[None], Suppression(0.1, 0.5, 300))
    assert found[:, :4].tolist() == [[5, 5, 15, 15]]


def test_boxes_too_large_for_a_number_are_left_out():
    """3e38 + 3e38 / 2 is no float32 any more; 2e38 is one, and so is its half, though not its area."""
    rows = torch.tensor([[3e38, 10, 3e38, 10, 0.9, 0.9], [0, 0, 2e38, 2e38, 0.8, 0.9], [0, 0, 2e38, 2e38, 0.7, 0.9]])
    (found,) = nms(rows[None], Suppression(0.1, 0.5, 300))
    # Areas and union are infinite, and inf / inf is over no limit: both stay.
    assert found[:, 4].tolist() == pytest.approx([0.72, 0.63])


@pytest.mark.slow
def test_the_command_line_does_not_pay_for_the_compiler():
    modules = "components.cli.main, components.stages.evaluate, yolo_core.evaluate.predict"
    code = f"import sys, {modules}; assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_nothing_is_dropped_among_many_candidates():
    """4,000 boxes that do not touch: the limit alone decides how many come back."""
    side = torch.arange(4_000)
    rows = torch.stack((side % 100 * 10, side // 100 * 10, side * 0 + 8, side * 0 + 8, 1 - side / 8_000, side * 0 + 1))
    (found,) = nms(rows.T[None].float(), Suppression(0.001, 0.65, 100_000))
    assert len(found) == 4_000
    assert (found[:, 4].diff() <= 0).all()


@given(st.lists(st.floats(min_value=2**-40, max_value=1, width=32), max_size=50))
def test_by_score_is_a_stable_descending_sort(scores):
    array = np.array(scores, np.float32)
    order = np.argsort(-array, kind="stable").tolist()
    assert by_score(array, len(array)).tolist() == order
    assert by_score(array, len(array) // 2).tolist() == order[: len(array) // 2]
