"""Fine-tuning: what is loaded, what is re-initialised, what stays frozen."""

import pytest
import torch

from yolo_core.errors import UserError
from yolo_core.models import build_model
from yolo_core.train.transfer import freeze, transfer


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
