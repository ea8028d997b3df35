"""A large model with some of its levels dropped."""

import pytest
import torch

from yolo_core.errors import UserError
from yolo_core.models import build_model
from yolo_core.models.cost import cost
from yolo_core.models.decode import decode
from yolo_core.models.fuse import fuse
from yolo_core.models.pyramid import drop_levels


@pytest.mark.parametrize(("name", "count"), [("yolov4-p6", 1), ("yolov4-p7", 1), ("yolov4-p7", 2)])
def test_remaining_levels_predict_the_same_as_before(name: str, count: int):
    torch.manual_seed(0)
    model = build_model(name, num_classes=2, width=0.125, depth=0.1).eval()
    smaller = drop_levels(model, count)
    size = model.input_stride
    images = torch.rand(1, 3, size, 2 * size)
    with torch.no_grad():
        before, after = model(images), smaller(images)
        assert len(after) == len(before) - count
        assert all(torch.equal(a, b) for a, b in zip(after, before, strict=False))
        assert torch.equal(decode(after, smaller), decode(before, model)[:, : sum(m[0, ..., 0].numel() for m in after)])
    assert smaller.strides == model.strides[:-count]
    assert (smaller.input_stride, len(model.strides)) == (model.input_stride, len(before))
    less, more = cost(smaller, size), cost(model, size)
    assert less.params < more.params
    assert less.gflops < more.gflops
    fuse(smaller)
    with pytest.raises(UserError, match=f"multiples of {model.input_stride}"):
        smaller(torch.zeros(1, 3, size // 2, size // 2))


def test_none_dropped_is_the_model_itself():
    model = build_model("yolov4-tiny", num_classes=2, width=0.125)
    assert drop_levels(model, 0) is model


@pytest.mark.parametrize(
    ("name", "count", "most"), [("yolov4-p7", 3, 2), ("yolov4-p5", 1, 0), ("yolov4-tiny", 1, 0), ("yolov7-w6", 1, 0)]
)
def test_a_level_that_cannot_be_dropped_is_refused(name: str, count: int, most: int):
    model = build_model(name, num_classes=2, width=0.125, depth=0.1)
    with pytest.raises(UserError, match=f"count = {count}: at most {most} levels of {name} can be dropped"):
        drop_levels(model, count)
