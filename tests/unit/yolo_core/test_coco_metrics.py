"""COCO figures of planted detections, and the two evaluators against each other to the last digit."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import Found, TrueBox, detections, write_ground_truth

from yolo_core.evaluate.coco_metrics import FIGURES, score
from yolo_core.evaluate.resampling import ap_for_image_counts

JUDGES = pytest.mark.parametrize("judge", ["hotcoco", "pycocotools"])
EDGES = (8.0, 32.0, 96.0)  # sides of boxes; small ends at 32 x 32 px2, medium at 96 x 96


@JUDGES
def test_perfect_detections(judge, tmp_path):
    truth = write_ground_truth(tmp_path / "t.json", [(1, 1, [0, 0, 20, 20], 0), (2, 7, [5, 5, 50, 50], 0)], [1, 2])
    result = score(truth, detections((1, 1, [0, 0, 20, 20], 0.9), (2, 7, [5, 5, 50, 50], 0.8)), judge=judge)
    # 400 px2 is small (< 32 x 32), 2500 px2 is medium (< 96 x 96), nothing is large.
    expected = dict.fromkeys(FIGURES, pytest.approx(1.0)) | {"AP_large": None, "AR_large": None}
    assert result.figures == expected
    assert result.per_class == {"cat": {"AP": pytest.approx(1), "AP50": pytest.approx(1)}} | {
        "dog": {"AP": pytest.approx(1), "AP50": pytest.approx(1)}
    }


@JUDGES
def test_one_right_one_missed_one_false(judge, tmp_path, capsys):
    """Two cats, one found at IoU 0.8, one false alarm of higher score; no dog anywhere."""
    truth = write_ground_truth(tmp_path / "t.json", [(1, 1, [0, 0, 10, 10], 0), (1, 1, [100, 0, 10, 10], 0)], [1, 2])
    result = score(truth, detections((1, 1, [0, 0, 10, 8], 0.6), (2, 1, [0, 0, 10, 10], 0.9)), judge=judge)
    # Precision 1/2 up to recall 1/2, then 0: 51 of 101 recall points x 0.5, at the 7 thresholds .50 to .80.
    assert result.figures["AP50"] == pytest.approx(51 / 101 / 2)
    assert result.figures["AP"] == pytest.approx(51 / 101 / 2 * 7 / 10)
    assert result.figures["AR100"] == pytest.approx(0.5 * 7 / 10)
    assert result.per_class["dog"] == {"AP": None, "AP50": None}
    assert capsys.readouterr().out == ""


@JUDGES
def test_no_detections_and_no_ground_truth(judge, tmp_path):
    truth = write_ground_truth(tmp_path / "t.json", [(1, 1, [0, 0, 10, 10], 0)], [1, 2])
    assert score(truth, detections(), judge=judge).figures["AP"] == 0
    nothing = score(truth, detections(), image_ids=[2], judge=judge)
    assert set(nothing.figures.values()) == {None}
    assert np.isnan(ap_for_image_counts(nothing, np.array([1])))


@JUDGES
def test_only_the_chosen_images_count(judge, tmp_path):
    truth = write_ground_truth(tmp_path / "t.json", [(1, 1, [0, 0, 10, 10], 0), (2, 1, [0, 0, 10, 10], 0)], [1, 2])
    found = detections((1, 1, [0, 0, 10, 10], 0.9), (2, 1, [50, 50, 10, 10], 0.95))
    assert score(truth, found, image_ids=[1], judge=judge).figures["AP"] == pytest.approx(1)
    assert score(truth, found, image_ids=[2], judge=judge).figures["AP"] == 0


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[TrueBox], list[float], list[Found], list[int] | None]:
    """Ground truths with their areas, detections, and the images that count (None: all five).

    Scores repeat, boxes coincide, areas lie on and beside the edges of the ranges; image 5 and category 3 are without
    truth, category 9 and image 8 are unknown to the file.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    grid = draw(st.sampled_from([1.0, 4.0, 0.37]))

    def box(near: list[float] | None = None) -> list[float]:
        if near is not None and rng.random() < 0.7:
            return [float(v) for v in np.array(near) + rng.integers(-2, 3, 4) * grid * (1, 1, 0.5, 0.5)]
        sides = rng.choice(EDGES, 2) if rng.random() < 0.7 else rng.uniform(4, 120, 2).round(2)
        return [*(float(v) for v in rng.integers(0, 12, 2) * grid), *(float(v) for v in sides)]

    truths = [
        (int(rng.integers(1, 5)), int(rng.choice([1, 7])), box(), int(rng.random() < 0.2))
        for _ in range(draw(st.integers(0, 25)))
    ]
    areas = [w * h + float(rng.choice([0, 0, 0, -0.5, 0.5])) for _, _, (_, _, w, h), _ in truths]
    scores = draw(st.sampled_from([[0.5], [0.25, 0.5, 0.75], np.linspace(0.01, 0.99, 99).round(2).tolist()]))
    found = []
    for _ in range(draw(st.sampled_from([0, 1, 10, 60, 450]))):
        image, category, near, _ = truths[rng.integers(len(truths))] if truths else (1, 1, None, 0)
        if rng.random() < 0.2:
            image, category = int(rng.choice([1, 2, 5, 8])), int(rng.choice([1, 3, 7, 9]))
        found.append((image, category, box(near), float(rng.choice(scores))))
    return truths, areas, found, draw(st.sampled_from([None, None, [1, 5], [2, 3, 4], [5], []]))


@settings(max_examples=250)
@given(cases())
def test_the_judges_agree_to_the_last_digit(case):
    truths, areas, found, images = case
    categories = ((7, "dog"), (1, "cat"), (3, "cow"))
    with tempfile.TemporaryDirectory() as folder:
        truth = write_ground_truth(Path(folder) / "t.json", truths, range(1, 6), categories, areas)
        fast, reference = (score(truth, detections(*found), images, judge) for judge in ("hotcoco", "pycocotools"))
    assert fast.figures == reference.figures
    assert fast.per_class == reference.per_class
    assert (fast.classes, fast.image_ids) == (reference.classes, reference.image_ids)
    assert np.array_equal(fast.precision, reference.precision)
    assert np.array_equal(fast.recall_points, reference.recall_points)
    for mine, theirs in zip(fast.matches, reference.matches, strict=True):
        assert np.array_equal(mine.image, theirs.image)
        assert np.array_equal(mine.right, theirs.right)
        assert np.array_equal(mine.ignored, theirs.ignored)
        assert np.array_equal(mine.truths, theirs.truths)
