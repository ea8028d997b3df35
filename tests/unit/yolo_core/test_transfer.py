"""Fine-tuning: what is loaded, what is re-initialised, what stays frozen."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from yolo_core.errors import UserError
from yolo_core.models import Detector, build_model
from yolo_core.models.head import Head
from yolo_core.models.spec import DARKNET_CODING
from yolo_core.models.weights import LoadedDetector
from yolo_core.train.transfer import freeze, take_over, transfer

TINY = "yolov4-tiny"


def detector(name: str, classes: list[str], **options) -> LoadedDetector:
    """A detector whose heads hold random numbers throughout, as trained ones do."""
    model = build_model(name, len(classes), width=0.125, **options).eval()
    for head in (model.head, model.auxiliary):
        for value in head.state_dict().values() if head else ():
            value.copy_(torch.rand_like(value))
    return LoadedDetector(model, classes, 64)


def state_of(model: Detector) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_everything_but_the_head_fits_another_number_of_classes():
    torch.manual_seed(0)
    source, model = (build_model("yolov4-tiny", classes, width=0.125) for classes in (80, 3))
    head = {name: value.clone() for name, value in model.head.state_dict().items()}
    report = transfer(model, source.state_dict())
    theirs = source.state_dict()
    assert sorted(report.fresh) == sorted(f"head.{name}" for name in head)
    assert sorted(report.unused) == sorted(report.fresh)
    assert sorted(report.loaded) == sorted(name for name in model.state_dict() if name.startswith("body."))
    for name, value in model.state_dict().items():
        assert torch.equal(value, theirs[name] if name in report.loaded else head[name.removeprefix("head.")])
    assert str(report) == f"{len(report.loaded)} tensors loaded, 4 unused; re-initialised: head.levels.0, head.levels.1"


def test_heads_for_other_classes_give_boxes_objectness_and_the_classes_of_the_same_name():
    torch.manual_seed(0)
    source = detector(TINY, ["cat", "dog", "bird"])
    model = detector(TINY, ["dog", "fox"]).model
    before, theirs = state_of(model), source.model.state_dict()
    taken = take_over(model, source, ["dog", "fox"])
    for name in ("head.levels.0.weight", "head.levels.0.bias", "head.levels.1.weight", "head.levels.1.bias"):
        own = model.state_dict()[name]
        for anchor in range(3):
            ours, other = 7 * anchor, 8 * anchor  # rows of an anchor: 5 + 2 classes here, 5 + 3 there
            assert torch.equal(own[ours : ours + 5], theirs[name][other : other + 5])
            assert torch.equal(own[ours + 5], theirs[name][other + 6])  # dog is class 0 here, class 1 there
            assert torch.equal(own[ours + 6], before[name][ours + 6])  # fox
    assert str(taken) == (
        f"{len(taken.loaded)} tensors loaded, 0 unused; head: boxes, objectness and 1 of 2 classes (dog) loaded; "
        "re-initialised: classes fox"
    )
    assert taken.head
    assert (taken.head.classes, taken.head.fresh, taken.fresh) == (["dog"], ["fox"], [])
    assert sorted([*taken.loaded, *taken.head.tensors]) == sorted(before)


@pytest.mark.parametrize("name", [TINY, "yolov7", "yolov7-w6"])  # plain, with implicit knowledge, with auxiliary heads
def test_the_first_maps_of_a_shared_class_are_those_of_the_source(name: str):
    torch.manual_seed(0)
    source, model = detector(name, ["a", "b", "c"]), detector(name, ["x", "c", "y", "a"]).model
    take_over(model, source, ["x", "c", "y", "a"])
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        pairs = zip(model.training_maps(images), source.model.training_maps(images), strict=True)
    for ours, theirs in pairs:
        torch.testing.assert_close(ours[..., [0, 1, 2, 3, 4, 6, 8]], theirs[..., [0, 1, 2, 3, 4, 7, 5]])


NAMES = st.lists(st.sampled_from("abcdefgh"), min_size=1, unique=True)


@settings(max_examples=30)
@given(ours=NAMES, theirs=NAMES, anchors=st.integers(1, 4), boxes=st.booleans())
def test_every_row_is_the_source_s_or_as_before(ours: list[str], theirs: list[str], anchors: int, boxes: bool):
    own, source = (Head([2], [8], anchors, len(names), implicit=True) for names in (ours, theirs))
    before = {name: value.clone() for name, value in own.state_dict().items()}
    shared = {index: theirs.index(name) for index, name in enumerate(ours) if name in theirs}
    whole, part = own.copy_rows(source, shared, boxes)
    assert (whole, sorted(part)) == (["add.0.implicit"], ["levels.0.bias", "levels.0.weight", "multiply.0.implicit"])
    assert torch.equal(own.state_dict()["add.0.implicit"], source.state_dict()["add.0.implicit"])
    for name in part:
        new, old = (state[name].reshape(anchors, 5 + len(ours), -1) for state in (own.state_dict(), before))
        given = source.state_dict()[name].reshape(anchors, 5 + len(theirs), -1)
        rows = {index: index for index in range(0 if boxes else 4, 5)} | {5 + i: 5 + j for i, j in shared.items()}
        for row in range(5 + len(ours)):
            assert torch.equal(new[:, row], given[:, rows[row]] if row in rows else old[:, row])


def test_the_same_classes_are_taken_over_whole():
    source, model = detector(TINY, ["a", "b"]), detector(TINY, ["a", "b"]).model
    taken = take_over(model, source, ["a", "b"])
    assert taken.head is None
    assert all(torch.equal(value, source.model.state_dict()[name]) for name, value in model.state_dict().items())


def test_boxes_in_another_coding_are_not_taken_over():
    source, model = detector(TINY, ["a", "b"], coding=DARKNET_CODING), detector(TINY, ["b"]).model
    before = state_of(model)["head.levels.0.bias"]
    taken = take_over(model, source, ["b"])
    own, theirs = model.head.state_dict()["levels.0.bias"], source.model.head.state_dict()["levels.0.bias"]
    assert torch.equal(own.view(3, 6)[:, :4], before.view(3, 6)[:, :4])
    assert torch.equal(own.view(3, 6)[:, 4:], theirs.view(3, 7)[:, [4, 6]])
    assert "; head: objectness and 1 of 1 classes (b) loaded; re-initialised: none" in str(taken)


def test_the_same_classes_in_another_coding_leave_the_head_as_it_is():
    source, model = detector(TINY, ["a", "b"], coding=DARKNET_CODING), detector(TINY, ["a", "b"]).model
    taken = take_over(model, source, ["a", "b"])
    assert sorted(taken.fresh) == sorted(f"head.{name}" for name in model.head.state_dict())


def test_a_head_with_another_number_of_anchors_is_re_initialised():
    two = (((8.0, 8.0), (16.0, 16.0)),) * 2
    source, model = detector(TINY, ["a", "b"], anchors=two), detector(TINY, ["a"]).model
    before = state_of(model)
    taken = take_over(model, source, ["a"])
    assert taken.head is None
    assert sorted(taken.fresh) == sorted(name for name in before if name.startswith("head."))
    assert all(torch.equal(before[name], model.state_dict()[name]) for name in taken.fresh)


def test_weights_of_another_width_are_refused():
    source, model = (build_model("yolov4-tiny", 3, width=width) for width in (0.25, 0.125))
    with pytest.raises(UserError, match=r"these weights fit only \d+% of the model; are they for this model and width"):
        transfer(model, source.state_dict())


def test_frozen_parts_get_no_gradient():
    model = build_model("yolov4-tiny", 2, width=0.125)
    parts = freeze(model, ["body.stem", "body.stage2"])
    assert parts == [model.body.stem, model.body.stage2]
    trained = {name.split(".")[1] for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert not {"stem", "stage2"} & trained
    assert "stage3" in trained


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (["body.stm"], r"no part 'body.stm'; the model has body.stem, .*head.levels"),
        ([""], "no part ''"),
        (["body", "head"], "leaves nothing to train"),
    ],
)
def test_wrong_parts_are_refused(parts: list[str], message: str):
    with pytest.raises(UserError, match=message):
        freeze(build_model("yolov4-tiny", 2, width=0.125), parts)
