"""The detection loss: by hand on maps of zeros, and against figures of the original implementation."""

import math

import numpy as np
import pytest
import torch

from yolo_core.hyperparameters import Hyperparameters
from yolo_core.losses.detection import DetectionLoss
from yolo_core.models import Detector, build_model

HYP = Hyperparameters(box=0.05, obj=0.7, cls=0.3)
LN2 = math.log(2)
# Only the first anchor of the first level is within 4 x of the 16 px and 32 px targets used here.
APART = (((32.0, 32.0), (400.0, 400.0), (500.0, 500.0)), ((400.0, 400.0), (500.0, 500.0), (600.0, 600.0)))


def tiny(num_classes: int, anchors=None) -> Detector:
    return build_model("yolov4-tiny", num_classes, width=0.125, anchors=anchors)


def zero_maps(model: Detector, batch: int = 1, size: int = 64) -> list[torch.Tensor]:
    """Maps that decode to the anchors at the cells' middles, all probabilities 0.5."""
    return [torch.zeros(batch, 3, size // s, size // s, 5 + model.num_classes).requires_grad_() for s in model.strides]


def test_by_hand():
    model = tiny(2, APART)
    target = torch.tensor([[0.0, 1, 24, 40, 16, 16]])  # the middle of cell (1, 2): one candidate
    loss, parts = DetectionLoss(model, HYP)(zero_maps(model), target)
    # a 16 px box in the middle of the predicted 32 px anchor: IoU 256 / 1024, same centre and shape, so CIoU is 1/4;
    # gains x 3 / 2 levels
    assert parts["box"].item() == pytest.approx((1 - 0.25) * 0.05 * 1.5)
    # cross-entropy at probability 1/2 is ln 2 whatever the target; balance 4 and 1
    assert parts["obj"].item() == pytest.approx(LN2 * (4 + 1) * 0.7 * 1.5)
    assert parts["cls"].item() == pytest.approx(LN2 * 0.3 * 1.5 * 2 / 80)
    assert loss.item() == pytest.approx(sum(p.item() for p in parts.values()))


def test_class_weights_multiply_the_class_loss_of_their_targets():
    """As above for two targets far apart, one of each class: both have ln 2, so the mean grows by (5 + 2) / 2."""
    model = tiny(2, APART)
    targets = torch.tensor([[0.0, 0, 24, 40, 16, 16], [0.0, 1, 40, 24, 16, 16]])
    plain = DetectionLoss(model, HYP)(zero_maps(model), targets)[1]
    weighted = DetectionLoss(model, HYP, class_weights=torch.tensor([5.0, 2.0]))(zero_maps(model), targets)[1]
    assert plain["cls"].item() == pytest.approx(LN2 * 0.3 * 1.5 * 2 / 80)
    assert weighted["cls"].item() == pytest.approx(LN2 * 0.3 * 1.5 * 2 / 80 * 3.5)
    assert (weighted["box"], weighted["obj"]) == (plain["box"], plain["obj"])


def test_the_objectness_target_is_the_detached_overlap():
    model = tiny(2, APART)
    maps = zero_maps(model)
    loss, _ = DetectionLoss(model, HYP)(maps, torch.tensor([[0.0, 1, 24, 40, 16, 16]]))
    loss.backward()
    goals = objectness_goals(maps[0])
    assert goals[0, 0, 2, 1].item() == pytest.approx(0.25, abs=1e-5)
    goals[0, 0, 2, 1] = 0
    assert goals.abs().max() < 1e-5


def objectness_goals(level: torch.Tensor) -> torch.Tensor:
    """Read back from the gradient at zero: (1/2 - goal) x balance 4 x gain 0.7 x 3/2 / cells."""
    assert level.grad is not None
    return 0.5 - level.grad[..., 4] * level[..., 4].numel() / (4 * 0.7 * 1.5 * len(level))


def test_the_last_of_two_targets_in_a_cell_holds_its_objectness():
    model = tiny(2, APART)
    same, half = [0.0, 1, 24, 40, 32, 32], [0.0, 1, 24, 40, 16, 16]  # IoU 1 and 1/4 with the anchor
    for targets, goal in (([same, half], 0.25), ([half, same], 1.0)):
        maps = zero_maps(model)
        DetectionLoss(model, HYP)(maps, torch.tensor(targets))[0].backward()
        assert objectness_goals(maps[0])[0, 0, 2, 1].item() == pytest.approx(goal, abs=1e-5)


def test_a_box_away_from_its_target_has_objectness_target_zero():
    model = tiny(2, APART)
    maps = zero_maps(model)
    maps[0].data[0, 0, 2, 1, 2:4] = -8  # the predicted box shrinks to a point beside the target: CIoU below 0
    maps[0].data[0, 0, 2, 1, :2] = 8
    DetectionLoss(model, HYP)(maps, torch.tensor([[0.0, 1, 24, 40, 16, 16]]))[0].backward()
    assert objectness_goals(maps[0])[0, 0, 2, 1].item() == pytest.approx(0, abs=1e-5)


def test_the_loss_grows_with_the_batch_and_its_parts_do_not():
    model = tiny(2, APART)
    target = torch.tensor([[0.0, 1, 24, 40, 16, 16]])
    pair = torch.cat((target, target + torch.tensor([1.0, 0, 0, 0, 0, 0])))
    one_loss, one_parts = DetectionLoss(model, HYP)(zero_maps(model), target)
    two_loss, two_parts = DetectionLoss(model, HYP)(zero_maps(model, batch=2), pair)
    assert two_loss.item() == pytest.approx(2 * one_loss.item())
    assert two_parts == {name: pytest.approx(value.item()) for name, value in one_parts.items()}


def test_a_single_class_has_no_class_loss():
    model = tiny(1)
    _, parts = DetectionLoss(model, HYP)(zero_maps(model), torch.tensor([[0.0, 0, 24, 40, 30, 30]]))
    assert parts["box"] > 0
    assert parts["cls"] == 0


def test_without_targets_only_objectness_learns():
    model = tiny(3)
    maps = zero_maps(model)
    loss, parts = DetectionLoss(model, HYP)(maps, torch.zeros(0, 6))
    loss.backward()
    assert parts["box"] == parts["cls"] == 0
    for level in maps:
        assert level.grad is not None
        assert (level.grad[..., 4] > 0).all()
        level.grad[..., 4] = 0
        assert (level.grad == 0).all()


def sequence(count: int, step: float) -> np.ndarray:
    """Evenly spread numbers in [0, 1), the same everywhere."""
    return (0.5 + step * np.arange(count)) % 1


def made_up(model: Detector, batch: int, size: int, count: int) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Maps (sine values) and targets (low-discrepancy boxes, many sharing cells) from formulas alone."""
    maps = []
    for level, stride in enumerate(model.strides):
        shape = (batch, len(model.anchors[level]), size // stride, size // stride, 5 + model.num_classes)
        values = 2 * np.sin(0.7 * np.arange(np.prod(shape)) + level)
        maps.append(torch.from_numpy(values.astype(np.float32).reshape(shape)).requires_grad_())
    index = np.arange(count)
    sides = 6 + 0.5 * size * np.stack((sequence(count, 0.618034), sequence(count, 0.414214)))
    centres = size * np.stack((sequence(count, 0.754878), sequence(count, 0.569840)))
    targets = np.stack((index % batch, index * 7 % model.num_classes, *centres, *sides), 1)
    return maps, torch.from_numpy(targets.astype(np.float32))


# Origin: compute_loss of WongKinYiu/ScaledYOLOv4, branch yolov4-csp, commit 9336ffe, run on `made_up` inputs with
# torch 2.13 (CPU), hyp box .05, obj .7, cls .3 x classes / 80, anchor_t 4. Columns: model, classes, batch, size,
# targets; box, obj, cls, loss; absolute sum of the gradients of all maps.
ORIGINAL: list[tuple] = [
    ("yolov4-tiny", 80, 4, 224, 0, 0, 4.814805, 0, 19.25922, 10.4993),
    ("yolov4-tiny", 80, 4, 224, 40, 0.1406489, 4.783883, 0.8259988, 23.00212, 12.16964),
    ("yolov4-tiny", 10, 2, 416, 150, 0.1329321, 4.71562, 0.1032122, 9.903529, 5.097859),
    ("yolov4-tiny", 1, 2, 96, 20, 0.1475435, 4.732248, 0, 9.759583, 5.033909),
    ("yolov4-tiny-3l", 80, 2, 128, 60, 0.1416427, 3.414636, 0.8263002, 8.765158, 4.50826),
    ("yolov4-tiny-3l", 3, 3, 224, 100, 0.1354397, 3.43845, 0.03123481, 10.81537, 5.645032),
]


@pytest.mark.parametrize("row", ORIGINAL, ids=lambda row: f"{row[0]}-{row[1]}-{row[4]}")
def test_equals_the_original_implementation(row):
    name, classes, batch, size, count, *expected, gradient = row
    model = build_model(name, classes, width=0.125)
    maps, targets = made_up(model, batch, size, count)
    loss, parts = DetectionLoss(model, HYP)(maps, targets)
    loss.backward()
    assert [*(parts[p].item() for p in ("box", "obj", "cls")), loss.item()] == pytest.approx(expected, rel=1e-5)
    assert sum(m.grad.abs().sum().item() for m in maps if m.grad is not None) == pytest.approx(gradient, rel=1e-5)


def test_repeats_bit_for_bit_with_several_threads():
    model = tiny(80)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        results = []
        for _ in range(4):
            maps, targets = made_up(model, 2, 128, 200)
            loss, _ = DetectionLoss(model, HYP)(maps, targets)
            loss.backward()
            results.append((loss.detach(), *(m.grad for m in maps)))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_half_precision_maps_are_computed_in_float32():
    model = tiny(4)
    maps, targets = made_up(model, 2, 64, 12)
    half = [m.detach().bfloat16() for m in maps]
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = DetectionLoss(model, HYP)(half, targets)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, DetectionLoss(model, HYP)([m.float() for m in half], targets)[0])


def test_a_validation_loss_in_inference_mode_leaves_training_possible():
    model = tiny(4)
    maps, targets = made_up(model, 1, 96, 5)  # a size no other test uses
    loss = DetectionLoss(model, HYP)
    with torch.inference_mode():
        before = loss(maps, targets)[0].item()
    value, _ = loss(maps, targets)
    value.backward()
    assert value.item() == before


@pytest.mark.parametrize("extreme", [-1e4, 1e4])
def test_extreme_maps_give_finite_gradients(extreme):
    model = tiny(4)
    maps, targets = made_up(model, 2, 64, 12)
    wild = [torch.full_like(m, extreme).requires_grad_() for m in maps]
    loss, _ = DetectionLoss(model, HYP)(wild, targets)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(m.grad).all() for m in wild if m.grad is not None)
