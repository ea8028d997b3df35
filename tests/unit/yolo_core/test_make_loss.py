"""Which loss a model trains with, the gains of the YOLOv7 losses, and their parts by hand on maps of zeros."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from yolo_core.errors import UserError
from yolo_core.hyperparameters import Hyperparameters
from yolo_core.losses import make_loss, targets_per_image
from yolo_core.losses.detection import DetectionLoss, LeadGuidedLoss, SimOTALoss
from yolo_core.models import Detector, build_model

HYP = Hyperparameters(box=0.05, obj=0.7, cls=0.3)
LN2 = math.log(2)
# Only the first anchor of the first level is within 4 x of the targets used here.
NEAR, FAR = (32.0, 32.0), (500.0, 500.0)
APART = {levels: ((NEAR, FAR, FAR), *((FAR, FAR, FAR),) * (levels - 1)) for levels in (3, 4)}
TARGET = [0.0, 1, 12, 20, 32, 32]  # the middle of cell (1, 2) of 8 px


def detector(name: str, classes: int = 2, anchors=None) -> Detector:
    torch.manual_seed(0)
    return build_model(name, classes, width=0.125, anchors=anchors)


def zero_maps(model: Detector, batch: int = 1, size: int = 64) -> list[Tensor]:
    """Maps that decode to the anchors at the cells' middles, all probabilities 0.5; auxiliary ones as well."""
    sets = 1 if model.auxiliary is None else 2
    shapes = [(batch, 3, size // s, size // s, 5 + model.num_classes) for s in model.strides]
    return [torch.zeros(shape).requires_grad_() for shape in shapes * sets]


def random_maps(model: Detector, batch: int = 2, size: int = 128, seed: int = 0) -> list[Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(m.shape, generator=random).requires_grad_() for m in zero_maps(model, batch, size)]


def random_targets(model: Detector, count: int, batch: int = 2, size: int = 128) -> Tensor:
    random = torch.Generator().manual_seed(1)
    place = size * torch.rand(count, 2, generator=random)
    side = 8 + 80 * torch.rand(count, 2, generator=random)
    labels = torch.randint(model.num_classes, (count, 1), generator=random)
    return torch.cat((torch.arange(count)[:, None] % batch, labels, place, side), 1)


def gradients(maps: list[Tensor]) -> list[Tensor]:
    """The gradients of maps that all have one."""
    return [m.grad for m in maps if m.grad is not None]


def objectness_goals(level: Tensor, weight: float) -> Tensor:
    """Read back from the gradient at zero: (1/2 - goal) x weight / cells."""
    assert level.grad is not None
    return 0.5 - level.grad[..., 4] * level[..., 4].numel() / weight


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("yolov4-tiny", DetectionLoss),
        ("yolov4-p6", DetectionLoss),
        ("yolov7", SimOTALoss),
        ("yolov7-w6", LeadGuidedLoss),
    ],
)
def test_the_model_says_which_loss(name, kind):
    assert type(make_loss(detector(name), HYP, size=640)) is kind


def with_kind(model: Detector, kind: str) -> Detector:
    model.spec = dataclasses.replace(model.spec, loss=dataclasses.replace(model.spec.loss, kind=kind))  # pyright: ignore[reportArgumentType]
    return model


@pytest.mark.parametrize(
    ("name", "kind"), [("yolov7", "lead-guided"), ("yolov7-w6", "simota"), ("yolov7-w6", "anchor-ratio")]
)
def test_a_loss_that_does_not_suit_the_heads_is_refused(name, kind):
    with pytest.raises(UserError, match=f"{name}: loss '{kind}'.*auxiliary heads") as error:
        make_loss(with_kind(detector(name), kind), HYP, size=640)
    assert "\n" not in str(error.value)


def test_lead_guided_training_of_a_model_without_its_auxiliary_heads_is_refused():
    model = detector("yolov7-w6")
    model.drop_auxiliary()
    with pytest.raises(UserError, match="no auxiliary heads"):
        make_loss(model, HYP, size=1280)


def test_simota_by_hand():
    model = detector("yolov7", anchors=APART[3])
    maps = zero_maps(model)
    loss, parts = make_loss(model, HYP, size=1280)(maps, torch.tensor([TARGET]))
    # One candidate, which predicts exactly the box: IoU 1. Cross-entropy at probability 1/2 is ln 2.
    # Gains x 3 / 3 levels; classes 2/80; objectness (1280 / 640)^2 = 4, balance 4, 1 and 0.4
    assert parts["box"].item() == pytest.approx(0, abs=1e-6)
    assert parts["obj"].item() == pytest.approx(LN2 * 5.4 * 0.7 * 4)
    assert parts["cls"].item() == pytest.approx(LN2 * 0.3 * 2 / 80)
    assert loss.item() == pytest.approx(sum(p.item() for p in parts.values()))
    loss.backward()
    goals = objectness_goals(maps[0], weight=4 * 0.7 * 4)
    assert goals[0, 0, 2, 1].item() == pytest.approx(1, abs=1e-5)
    assert goals.abs().sum().item() == pytest.approx(1, abs=1e-3)


def test_simota_leaves_out_the_worse_candidates():
    model = detector("yolov7", anchors=APART[3])
    target = torch.tensor([[0.0, 1, 14, 22, 32, 32]])  # right and below in its cell: takes the cells right and below
    maps = zero_maps(model)
    make_loss(model, HYP, size=640)(maps, target)[0].backward()
    goals = objectness_goals(maps[0], weight=4 * 0.7)[0, 0]
    # Cells predict 32 px boxes at their middles (12, 20), (20, 20), (12, 28): shifts of (2, 2), (6, 2), (2, 6).
    # Overlaps 30 x 30 = 900 of 1148: 0.784; twice 26 x 30 = 780 of 1268: 0.615. Sum 2.01: the two cheapest, of equal
    # ones the first, which is the right one
    assert goals[2, 1] > 0.5
    assert goals[2, 2] > 0.5
    assert goals[3, 1].item() == pytest.approx(0, abs=1e-5)


def test_lead_guided_by_hand():
    model = detector("yolov7-w6", anchors=APART[4])
    maps = zero_maps(model)
    loss, parts = make_loss(model, HYP, size=640)(maps, torch.tensor([TARGET]))
    loss.backward()
    # Lead: the centre's cell alone. Gains x 3 / 4 levels; balance 4, 1, 0.25, 0.06; the auxiliary heads count 1/4.
    assert parts["obj"].item() == pytest.approx(LN2 * 5.31 * 0.7 * 0.75 * 1.25)
    assert parts["cls"].item() == pytest.approx(LN2 * 0.3 * 0.75 * 2 / 80 * 1.25)
    lead = objectness_goals(maps[0], weight=4 * 0.7 * 0.75)
    auxiliary = objectness_goals(maps[4], weight=4 * 0.7 * 0.75 / 4)
    assert lead[0, 0, 2, 1].item() == pytest.approx(1, abs=1e-4)
    assert lead.abs().sum().item() == pytest.approx(1, abs=1e-2)
    # Auxiliary: five cells, one shifted by 0 and four by 8 px: IoU 1 and four times 24 / 40 = 0.6. Sum 3.4: three are
    # taken, the centre and of the equal ones the first two, left and above. CIoU is IoU less (8 / diagonal)^2 of the
    # hull of 40 x 32, so 0.6 - 64 / 2624 = 0.576.
    for cell in ((2, 0), (1, 1)):
        assert auxiliary[(0, 0, *cell)].item() == pytest.approx(0.6 - 64 / 2624, abs=1e-3)
    assert auxiliary.abs().sum().item() == pytest.approx(1 + 2 * (0.6 - 64 / 2624), abs=1e-2)
    # box: the mean of 0, 0.424 and 0.424 for the auxiliary heads, 0 for the lead
    assert parts["box"].item() == pytest.approx(2 / 3 * (1 - 0.6 + 64 / 2624) * 0.05 * 0.75 / 4, abs=1e-6)


def test_the_lead_heads_choose_for_both():
    model = detector("yolov7-w6", anchors=APART[4])
    maps = zero_maps(model)
    with torch.no_grad():
        maps[4][..., 4:] = 3  # whatever the auxiliary heads predict
        maps[4][0, 0, 2, 1, 2:4] = -3
    make_loss(model, HYP, size=640)(maps, torch.tensor([TARGET]))[0].backward()
    touched = gradients(maps)[4][..., 0:4].abs().sum((-1, 0, 1)).nonzero().tolist()
    assert touched == [[1, 1], [2, 0], [2, 1]]


def test_the_lead_heads_do_not_learn_from_the_auxiliary_loss():
    model = detector("yolov7-w6", 4)
    targets = random_targets(model, 20)
    learned = []
    for seed in (1, 2):
        maps = [*random_maps(model)[:4], *random_maps(model, seed=seed)[4:]]
        make_loss(model, HYP, size=640)(maps, targets)[0].backward()
        learned.append(gradients(maps))
    assert all(torch.equal(a, b) for a, b in zip(learned[0][:4], learned[1][:4], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(learned[0][4:], learned[1][4:], strict=True))


@pytest.mark.parametrize("name", ["yolov7", "yolov7-w6"])
def test_counts_only_avoid_waiting_for_the_device(name):
    model = detector(name, 4)
    maps, targets = random_maps(model), random_targets(model, 20)
    loss = make_loss(model, HYP, size=640)
    assert torch.equal(loss(maps, targets)[0], loss(maps, targets, [10, 10])[0])


def test_targets_per_image_counts_images_without_targets():
    targets = torch.zeros(3, 6)
    targets[:, 0] = torch.tensor([2, 0, 2])
    assert targets_per_image(targets, 4) == [1, 0, 2, 0]
    assert targets_per_image(torch.zeros(0, 6), 2) == [0, 0]


@pytest.mark.parametrize("name", ["yolov7", "yolov7-w6"])
def test_without_targets_only_objectness_learns(name):
    model = detector(name, 3)
    maps = random_maps(model)
    loss, parts = make_loss(model, HYP, size=640)(maps, torch.zeros(0, 6))
    loss.backward()
    assert parts["box"] == parts["cls"] == 0
    for gradient in gradients(maps):
        assert (gradient[..., 4] > 0).all()
        gradient[..., 4] = 0
        assert (gradient == 0).all()


@pytest.mark.parametrize("name", ["yolov7", "yolov7-w6"])
def test_a_single_class_has_no_class_loss(name):
    model = detector(name, 1)
    _, parts = make_loss(model, HYP, size=640)(random_maps(model), random_targets(model, 12))
    assert parts["box"] > 0
    assert parts["cls"] == 0


@pytest.mark.parametrize("name", ["yolov7", "yolov7-w6"])
def test_the_order_of_images_does_not_matter(name):
    """Targets of one image stay in order; those of different images may come mixed or image by image."""
    model = detector(name, 4)
    maps, targets = random_maps(model), random_targets(model, 30)
    by_image = targets[targets[:, 0].argsort(stable=True)]
    loss = make_loss(model, HYP, size=640)
    torch.testing.assert_close(loss(maps, targets)[0], loss(maps, by_image)[0])


@pytest.mark.parametrize("name", ["yolov7", "yolov7-w6"])
def test_workers_losses_average_to_the_loss_of_their_batches_together(name):
    model = detector(name, 4)
    maps, targets = random_maps(model, batch=2), random_targets(model, 30)
    together, _ = make_loss(model, HYP, size=640)(maps, targets)
    halves = []
    for image in (0, 1):
        own = targets[targets[:, 0] == image] * torch.tensor([0.0, 1, 1, 1, 1, 1])
        halves.append(([m[image : image + 1] for m in maps], own))
    # what each worker counts, call by call; then the loss with the mean of both
    seen: list[list[Tensor]] = [[], []]
    for worker, inputs in enumerate(halves):

        def note(counts: Tensor, worker: int = worker) -> Tensor:
            seen[worker].append(counts)
            return counts

        make_loss(model, HYP, size=640, worker_mean=note)(*inputs)
    total = torch.zeros(())
    for inputs in halves:
        means = iter((a + b) / 2 for a, b in zip(*seen, strict=True))
        total = total + make_loss(model, HYP, size=640, worker_mean=lambda _, means=means: next(means))(*inputs)[0]
    # each worker's loss is for one image, the one of both together for two
    torch.testing.assert_close(total, together)


@pytest.mark.parametrize("name", ["yolov7", "yolov7-w6"])
@pytest.mark.parametrize("extreme", [-1e4, 1e4])
def test_extreme_maps_give_finite_gradients(name, extreme):
    model = detector(name, 4)
    maps = [torch.full_like(m, extreme).requires_grad_() for m in zero_maps(model, 2, 128)]
    loss, _ = make_loss(model, HYP, size=640)(maps, random_targets(model, 12))
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(gradient).all() for gradient in gradients(maps))


@pytest.mark.parametrize("name", ["yolov7", pytest.param("yolov7-w6", marks=pytest.mark.slow)])
def test_repeats_bit_for_bit_with_several_threads(name):
    model = detector(name, 20)
    targets = random_targets(model, 150)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        results = []
        for _ in range(3):
            maps = random_maps(model)
            loss, _ = make_loss(model, HYP, size=640)(maps, targets)
            loss.backward()
            results.append((loss.detach(), *gradients(maps)))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("name", ["yolov7", "yolov7-w6"])
def test_half_precision_maps_are_computed_in_float32(name):
    model = detector(name, 4)
    half = [m.detach().bfloat16() for m in random_maps(model)]
    targets = random_targets(model, 12)
    loss = make_loss(model, HYP, size=640)
    with torch.autocast("cpu", torch.bfloat16):
        value, _ = loss(half, targets)
    assert value.dtype == torch.float32
    assert torch.equal(value, loss([m.float() for m in half], targets)[0])


def test_a_validation_loss_in_inference_mode_leaves_training_possible():
    model = detector("yolov7-w6", 4)
    maps, targets = random_maps(model, size=192), random_targets(model, 12)  # a size no other test uses
    loss = make_loss(model, HYP, size=640)
    with torch.inference_mode():
        before = loss(maps, targets)[0].item()
    value, _ = loss(maps, targets)
    value.backward()
    assert value.item() == before


@pytest.mark.parametrize("name", ["yolov7-tiny", "yolov7-w6"])
def test_training_maps_are_what_the_loss_expects(name):
    model = detector(name, 3).train()
    loss, _ = make_loss(model, HYP, size=128)(
        model.training_maps(torch.rand(2, 3, 128, 128)), random_targets(model, 12)
    )
    loss.backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert torch.isfinite(parameter.grad).all(), parameter_name


def test_the_gains_need_not_grow_with_classes_and_size():
    """At probability 1/2 the class loss is ln 2; the objectness loss is ln 2 times the balance of 4, 1 and .4."""
    model, target = detector("yolov7", anchors=APART[3]), torch.tensor([TARGET])
    constant = HYP.replace(cls_count_power=0.0, obj_size_power=0.0)
    parts = make_loss(model, constant, size=160)(zero_maps(model), target)[1]
    assert parts["cls"].item() == pytest.approx(LN2 * 0.3)
    assert parts["obj"].item() == pytest.approx(LN2 * 5.4 * 0.7)
    published = make_loss(model, HYP, size=160)(zero_maps(model), target)[1]
    assert published["cls"].item() == pytest.approx(LN2 * 0.3 * 2 / 80)
    assert published["obj"].item() == pytest.approx(LN2 * 5.4 * 0.7 / 16)  # (160 / 640)^2


def test_without_simota_every_candidate_is_assigned():
    model = detector("yolov7")
    maps, targets = random_maps(model), random_targets(model, 12)
    all_candidates = DetectionLoss(model, HYP)(maps, targets)[0]
    loss = make_loss(model, HYP, size=640)
    assert loss(maps, targets, None, False)[0].item() == all_candidates.item()
    assert loss(maps, targets)[0].item() != all_candidates.item()


def test_without_simota_auxiliary_heads_have_the_candidates_all_around():
    """One target in the middle of a cell: its own cell for the lead heads, and four more for the auxiliary ones."""
    model = detector("yolov7-w6", anchors=APART[4])
    maps = zero_maps(model, size=128)
    make_loss(model, HYP, size=640)(maps, torch.tensor([TARGET]), None, False)[0].backward()
    lead, auxiliary = gradients([maps[0], maps[4]])
    assert (lead[..., 5:].abs().sum(-1) > 0).sum() == 1
    assert (auxiliary[..., 5:].abs().sum(-1) > 0).sum() == 5
