"""SimOTA by hand on a map of one level and one anchor, and against a definition in plain loops."""

import math
import weakref
from collections.abc import Mapping, Sequence

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.overrides import TorchFunctionMode

from yolo_core.losses import simota
from yolo_core.losses.assign import ALL_AROUND, Assignment, assign

ANCHORS = torch.tensor([[[32.0, 32.0]]])
STRIDE, CELLS = 16, 4  # one level of 4 x 4 cells
OWN, LEFT, ABOVE = (1, 1), (0, 1), (1, 0)  # (column, row) of the candidates of a target at (20, 20)
SURE = 30.0  # a logit whose probability is 1


def assigned(targets: Sequence[Sequence[float]]) -> tuple[Assignment, Tensor]:
    rows = torch.tensor(targets)
    return assign(rows, ANCHORS, (STRIDE,), [(CELLS, CELLS)], 4.0), rows


def at_cells(found: Assignment, table: Mapping[tuple[int, int], Sequence[float]], default: Sequence[float]) -> Tensor:
    """A value for each candidate (L, S, A, T, ...) by its cell."""
    cells = found.cells_xy.expand(*found.valid.shape, 2).flatten(0, 3).long().tolist()
    values = [table.get((x, y), default) for x, y in cells]
    return torch.tensor(values).unflatten(0, found.valid.shape)


def taken(
    targets: Sequence[Sequence[float]],
    boxes: Mapping[tuple[int, int], Sequence[float]],
    logits: Mapping[tuple[int, int], Sequence[float]] | None = None,
    top: int = 10,
) -> list[tuple[tuple[int, int], int]]:
    """(cell, target) of the candidates taken, where the cells predict those boxes and logits."""
    found, rows = assigned(targets)
    images = int(rows[:, 0].max()) + 1
    counts = [int((rows[:, 0] == image).sum()) for image in range(images)]
    logits = logits or {}
    outputs = len(next(iter(logits.values()))) if logits else 2
    result = simota.match(
        found,
        at_cells(found, boxes, [500.0, 500, 1, 1]),
        at_cells(found, logits, [0.0] * outputs),
        rows,
        counts,
        top,
    )
    cells = found.cells_xy.expand(*found.valid.shape, 2)[result.valid].long().tolist()
    return sorted(((x, y), t) for (x, y), t in zip(cells, result.targets[result.valid].tolist(), strict=True))


TARGET = [0, 0, 20, 20, 20, 20]  # 10 to 30 both ways; asks its own cell, the left one and the one above


def slid(pixels: float, size: float = 20) -> list[float]:
    """The target's box, shifted to the right: overlap (size - pixels) of (size + pixels) columns."""
    return [20 + pixels, 20, size, size]


def test_k_is_the_whole_part_of_the_summed_overlaps():
    # overlaps 1, 12/28 = 0.43 and 10/30 = 0.33: sum 1.76, one candidate, the best
    assert taken([TARGET], {OWN: slid(0), LEFT: slid(8), ABOVE: slid(10)}) == [(OWN, 0)]
    # 1, 18/22 = 0.82 and 10/30 = 0.33: sum 2.15, the two best
    assert taken([TARGET], {OWN: slid(0), LEFT: slid(2), ABOVE: slid(10)}) == [(LEFT, 0), (OWN, 0)]
    # 1, 1, 1
    assert len(taken([TARGET], {OWN: slid(0), LEFT: slid(0), ABOVE: slid(0)})) == 3


def test_k_is_at_least_one():
    # overlaps 5/35 = 0.14, nothing and nothing
    assert taken([TARGET], {ABOVE: slid(15)}) == [(ABOVE, 0)]


def test_k_sums_the_best_overlaps_alone():
    # overlaps 1, 0.82 and 0.82 sum to 2.64, the best two to 1.82
    boxes = {OWN: slid(0), LEFT: slid(2), ABOVE: slid(2)}
    assert len(taken([TARGET], boxes, top=3)) == 2
    assert len(taken([TARGET], boxes, top=2)) == 1


def test_a_sure_prediction_beats_a_better_box():
    # one class; y = sqrt(class x objectness), cost -ln y - 3 ln IoU
    # own cell: y = sqrt(1 x 0.04) = 0.2, IoU 1: 1.61 + 0. Left: y = sqrt(1 x 0.81) = 0.9, IoU 16/24: 0.11 + 1.22 = 1.32
    boxes = {OWN: slid(0), LEFT: slid(4)}
    faint, clear = [math.log(0.04 / 0.96), SURE], [math.log(0.81 / 0.19), SURE]
    assert taken([TARGET], boxes, {OWN: faint, LEFT: clear}) == [(LEFT, 0)]
    # IoU 14/26: 0.11 + 1.86 = 1.96 is dearer than 1.61
    assert taken([TARGET], {OWN: slid(0), LEFT: slid(6)}, {OWN: faint, LEFT: clear}) == [(OWN, 0)]


def test_the_class_counts_for_and_the_other_classes_against():
    # same box, three classes, objectness 1: y = sqrt(class). Right class 0.81, others about 0: -ln 0.9 = 0.11.
    # Right class 0.81, another 0.25: 0.11 - ln(1 - 0.5) = 0.80. So the target takes the first of the two.
    p81, p25 = math.log(0.81 / 0.19), math.log(0.25 / 0.75)
    boxes = {OWN: slid(2), LEFT: slid(2)}  # 0.82 each: k = 1
    target = [0, 1, 20, 20, 20, 20]
    logits = {OWN: [SURE, p25, p81, -SURE], LEFT: [SURE, -SURE, p81, -SURE], ABOVE: [SURE, -SURE, p81, -SURE]}
    assert taken([target], boxes, logits) == [(LEFT, 0)]


def test_a_prediction_that_two_targets_take_goes_to_the_cheaper():
    # Two targets in one cell ask the same three predictions, so each is a candidate twice. The own cell predicts the
    # first target's box: cost -3 ln 1 against -3 ln(16/24) for the second, shifted by 4. Both take it (k = 1 + 1 = 2
    # of the same prediction's two candidates); the first target gets both.
    second = [0, 0, 24, 20, 20, 20]
    boxes = {OWN: slid(0)}
    assert taken([second], boxes) == [(OWN, 0)]
    assert taken([TARGET, second], boxes) == [(OWN, 0), (OWN, 0)]
    assert taken([second, TARGET], boxes) == [(OWN, 1), (OWN, 1)]


def test_a_prediction_that_two_take_goes_to_the_cheapest_target_of_the_image():
    # Centres in the middle of a cell ask that cell alone: a and b the own cell, c the cell (3, 1).
    a, b, c = [0, 0, 24, 24, 20, 20], [0, 0, 24, 24, 16, 16], [0, 0, 56, 24, 64, 40]
    boxes = {OWN: [40.0, 24, 40, 32], (3, 1): [56.0, 24, 64, 40]}
    # Own cell's box: IoU with a 14 x 20 / 1400 = 0.2, with b 12 x 16 / 1344 = 0.14, with c 36 x 32 / 2688 = 0.43;
    # the other box: with a 0.07, with b 0.05, with c 1. The own cell is a candidate twice, as two asked it:
    # a sums 0.47, b 0.34, c 1.86, each takes one: a and b the own cell's first, c its own box.
    # Of those two claims the cheapest of all targets profits, -3 ln 0.43 = 2.5 of c against -3 ln 0.2 = 4.8 of a.
    assert taken([a, b, c], boxes) == [(OWN, 2), ((3, 1), 2)]


def test_images_do_not_compete():
    boxes = {OWN: slid(0)}
    assert taken([TARGET, [1.0, *TARGET[1:]]], boxes) == [(OWN, 0), (OWN, 1)]


def test_a_target_that_fits_no_anchor_takes_from_what_others_asked():
    # 20 x 130 is more than 4 x 32 high: it asks nothing, yet every target of the image takes at least one candidate.
    tall = [0, 0, 20, 20, 20, 130]
    assert taken([tall], {OWN: slid(0)}) == []
    # The own cell's box is cheaper for the target that asked, and both take it: k is 1 for both
    assert taken([TARGET, tall], {OWN: slid(0)}) == [(OWN, 0)]
    # Where the cell above fits the tall one better (IoU 1), it gets that
    assert taken([TARGET, tall], {OWN: slid(0), ABOVE: tall[2:]}) == [(ABOVE, 1), (OWN, 0)]


@pytest.mark.parametrize("side", [0.0, -1.0, float("nan")])
def test_a_target_without_area_takes_nothing(side):
    assert taken([TARGET, [0, 0, 20, 20, 20, side]], {OWN: slid(0)}) == [(OWN, 0)]


def test_of_equal_candidates_the_first_is_taken():
    # overlaps 0.33 each: k = 1; the order is centre, left, above
    boxes = {OWN: slid(10), LEFT: slid(10), ABOVE: slid(10)}
    assert taken([TARGET], boxes) == [(OWN, 0)]
    assert taken([TARGET], {LEFT: slid(10), ABOVE: slid(10)}) == [(LEFT, 0)]


def test_without_targets_nothing_is_taken():
    found, _ = assigned([TARGET])
    nothing = assign(torch.zeros(0, 6), ANCHORS, (STRIDE,), [(CELLS, CELLS)], 4.0)
    result = simota.match(nothing, torch.zeros(1, 5, 1, 0, 4), torch.zeros(1, 5, 1, 0, 2), torch.zeros(0, 6), [0, 0], 9)
    assert result.valid.shape == (*found.valid.shape[:3], 0)
    assert not result.valid.any()


@pytest.mark.parametrize("extreme", [-1e4, 1e4])
def test_extreme_predictions_are_taken_all_the_same(extreme):
    found, rows = assigned([TARGET, [0, 1, 40, 40, 30, 30]])
    boxes = at_cells(found, {}, slid(extreme))
    logits = torch.full((*found.valid.shape, 3), extreme)
    result = simota.match(found, boxes, logits, rows, [2], 10)
    assert result.targets[result.valid].tolist() == [0]  # all equally dear: the first candidate and target


# Two levels of two anchors for the comparison with the definition.
SIDES = torch.tensor([[[12.0, 16.0], [36.0, 30.0]], [[40.0, 60.0], [110.0, 90.0]]])
STRIDES, SHAPES = (8, 16), [(16, 12), (8, 6)]


def made_up(seed: int, images: int, classes: int, count: int, near: float):
    """Random targets, many of them crowded, and random predictions about as good as a training's."""
    random = torch.Generator().manual_seed(seed)
    place = torch.rand(count, 2, generator=random) * torch.tensor([96.0, 128.0])
    place = torch.where(torch.rand(count, 1, generator=random) < 0.5, 40 + place / 8, place)
    side = 6 + 90 * torch.rand(count, 2, generator=random) ** 2
    image = torch.randint(images, (count, 1), generator=random)
    label = torch.randint(classes, (count, 1), generator=random)
    targets = torch.cat((image, label, place, side), 1)
    found = assign(targets, SIDES, STRIDES, SHAPES, 4.0, near)
    # A prediction is one thing, however many targets ask it: values by row of the map.
    outputs = 4 + 1 + classes
    maps = [torch.randn(images * 2 * h * w, outputs, generator=random) for h, w in SHAPES]
    raw = torch.stack([m[rows] for m, rows in zip(maps, found.rows, strict=True)])
    centres = (found.cells_xy + 0.5 + 0.3 * raw[..., :2]) * found.strides
    boxes = torch.cat((centres, (0.4 * raw[..., 2:4]).exp() * SIDES[:, None, :, None]), -1)
    counts = targets[:, 0].long().bincount(minlength=images).tolist()
    return found, boxes, raw[..., 4:] * 2, targets, counts


def overlap_of(a: list[float], b: list[float]) -> float:
    """Intersection over union of two boxes cx, cy, w, h."""
    spans = []
    for axis in (0, 1):
        low = max(a[axis] - a[axis + 2] / 2, b[axis] - b[axis + 2] / 2)
        high = min(a[axis] + a[axis + 2] / 2, b[axis] + b[axis + 2] / 2)
        spans.append(max(high - low, 0.0))
    shared = spans[0] * spans[1]
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


def cost_of(target: list[float], box: list[float], logits: list[float]) -> float:
    objectness = 1 / (1 + math.exp(-logits[0]))
    cost = -3 * math.log(overlap_of(target[2:], box) + 1e-8)
    for index, logit in enumerate(logits[1:]):
        score = math.sqrt(objectness / (1 + math.exp(-logit)))
        cost -= math.log(score) if index == target[1] else math.log(1 - score)
    return cost


def by_definition(
    found: Assignment, boxes: Tensor, logits: Tensor, targets: Tensor, top: int
) -> tuple[dict[int, int], bool]:
    """Index of a candidate in the flattened assignment -> target that takes it, one image after the other.

    And whether rounding decides: the last candidate that a target takes costs as much as the first that it leaves.
    Both are often copies of one prediction, whose costs may differ in the last bit by their position in a vector.
    """
    image_of = targets[:, 0].tolist() * (found.valid.numel() // len(targets))
    valid, all_boxes, all_logits = found.valid.flatten(), boxes.flatten(0, 3).tolist(), logits.flatten(0, 3).tolist()
    result, close = {}, False
    for image in sorted(set(targets[:, 0].tolist())):
        places = [p for p in range(len(valid)) if valid[p] and image_of[p] == image]
        seekers = [t for t, target in enumerate(targets.tolist()) if target[0] == image]
        if not places:
            continue
        cost, takers = {}, {p: [] for p in places}
        for t in seekers:
            target = targets[t].tolist()
            cost[t] = {p: cost_of(target, all_boxes[p], all_logits[p]) for p in places}
            best = sorted((overlap_of(target[2:], all_boxes[p]) for p in places), reverse=True)[:top]
            k = max(int(sum(best)), 1)
            ranked = sorted(places, key=lambda p, t=t: cost[t][p])  # a stable sort
            close |= k < len(ranked) and math.isclose(cost[t][ranked[k - 1]], cost[t][ranked[k]], rel_tol=1e-12)
            for p in ranked[:k]:
                takers[p].append(t)
        for p, several in takers.items():
            if several:
                result[p] = several[0] if len(several) == 1 else min(seekers, key=lambda t, p=p: cost[t][p])
    return result, close


@settings(max_examples=60)
@example(seed=9999, images=1, classes=7, count=7, top=2, near=0.5)
@given(
    seed=st.integers(0, 10_000),
    images=st.integers(1, 3),
    classes=st.sampled_from([1, 2, 7]),
    count=st.integers(1, 14),
    top=st.sampled_from([2, 10, 20]),
    near=st.sampled_from([0.5, ALL_AROUND]),
)
def test_equals_the_definition(seed, images, classes, count, top, near):
    found, boxes, logits, targets, counts = made_up(seed, images, classes, count, near)
    # In single precision two costs that differ by less than its rounding have no one order.
    result = simota.match(found, boxes.double(), logits.double(), targets.double(), counts, top)
    places = result.valid.flatten().nonzero().flatten().tolist()
    answers = result.targets.flatten().tolist()
    taken_by = {p: answers[p] for p in places}
    expected, close = by_definition(found, boxes, logits, targets, top)
    assert taken_by == expected or close


def test_the_groups_do_not_change_the_result(monkeypatch):
    inputs = made_up(3, images=9, classes=4, count=120, near=ALL_AROUND)
    together = simota.match(*inputs, top=20)
    for memory in (1, 300_000):
        monkeypatch.setattr(simota, "GROUP_MEMORY", memory)
        apart = simota.match(*inputs, top=20)
        assert torch.equal(together.valid, apart.valid)
        assert torch.equal(together.targets, apart.targets)


class PeakMemory(TorchFunctionMode):
    """The most bytes that results of tensor operations under it held at once."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.known: set[int] = set()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        with torch._C.DisableTorchFunction():
            given = {t.untyped_storage()._cdata for t in args if isinstance(t, Tensor)}
            for tensor in made if isinstance(made, tuple) else (made,):
                if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in self.known | given:
                    self._add(tensor.untyped_storage())
        return made

    def _add(self, storage: torch.UntypedStorage) -> None:
        self.known.add(storage._cdata)
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())

    def _gone(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.live -= size


@pytest.mark.parametrize("classes", [1, 80])
def test_memory_is_bounded_however_many_images(classes, monkeypatch):
    budget = 4 * 2**20
    monkeypatch.setattr(simota, "GROUP_MEMORY", budget)
    inputs = made_up(0, images=40, classes=classes, count=600, near=0.5)
    with PeakMemory() as memory:
        simota.match(*inputs, top=10)
    answers = inputs[0].valid.numel() * 8 * 3  # the result and what it is copied from
    assert budget / 4 < memory.peak < budget + answers
