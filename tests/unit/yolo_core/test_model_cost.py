"""Counting parameters, operations, traffic and memory."""

from dataclasses import replace

import pytest
import torch

from yolo_core.models import build_model, get_spec
from yolo_core.models.blocks import ConvBnAct
from yolo_core.models.cost import cost, footprint, kept_bytes
from yolo_core.models.detector import Body, Detector
from yolo_core.models.fuse import fuse
from yolo_core.models.spec import Scaling


def test_costs_grow_with_the_area_and_not_the_parameters():
    model = build_model("yolov4-tiny", 3, width=0.125)
    small, large = cost(model, 64), cost(model, 128)
    assert large.params == small.params == sum(p.numel() for p in model.parameters())
    assert large.gflops == 4 * small.gflops


def test_the_model_is_neither_changed_nor_run():
    model = build_model("yolov4-tiny", 3, width=0.125).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    cost(model, 64)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(m._forward_hooks for m in model.modules())


def test_a_fused_copy_has_fewer_parameters_and_the_same_operations():
    model = build_model("yolov4-tiny", 3, width=0.125)
    training, inference = cost(model, 64), cost(fuse(model), 64)
    channels = sum(m.num_features for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d))
    assert inference.params == training.params - channels  # scale and shift become one bias
    assert inference.gflops == training.gflops


def test_one_convolution_by_hand():
    model = build_model("yolov4-tiny", 3, width=0.125)
    only_stem = cost(model, 32).gflops - without_first_convolution(model, 32)
    # 3 -> 8 channels, 3 x 3 kernel, 16 x 16 outputs, two operations each
    assert round(only_stem * 1e9) == 2 * 3 * 8 * 9 * 16 * 16


def without_first_convolution(model, size: int) -> float:
    first = model.body.stem[0].conv
    model.body.stem[0].conv = torch.nn.Sequential(torch.nn.MaxPool2d(2), Widen(first.out_channels))
    try:
        return cost(model, size).gflops
    finally:
        model.body.stem[0].conv = first


class Widen(torch.nn.Module):
    """Repeats the first channel: the shape of a convolution's output without its operations."""

    def __init__(self, channels: int):
        super().__init__()
        self.channels = channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :1].expand(-1, self.channels, -1, -1)


class Row(Body):
    """3 -> 8 channels at half the size, then 8 -> 8."""

    def __init__(self):
        super().__init__()
        self.first = ConvBnAct(3, 8, 3, 2)
        self.second = ConvBnAct(8, 8, 3, 2)
        self.out_channels = (8,)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [self.second(self.first(images))]


def row() -> Detector:
    spec = replace(get_spec("yolov4-tiny"), strides=(4,), anchors=(((4, 4),),))
    return Detector(spec, Row(), num_classes=3, scaling=Scaling())


def test_the_footprint_by_hand():
    counted = footprint(row(), 32)
    # Maps per image: input 3 x 32 x 32 = 3072, first 8 x 16 x 16 = 2048, second 8 x 8 x 8 = 512, raw 8 x 8 x 8 = 512.
    assert counted.convolutions == 3
    assert counted.io == (3072 + 2048) + (2048 + 512) + (512 + 512)
    # Weights and biases: 8 x 27 + 8, 8 x 72 + 8, 8 x 8 + 8; the anchors, a buffer, are two numbers.
    assert counted.params == 224 + 584 + 72
    assert counted.weight_bytes == 4 * (224 + 584 + 72 + 2)
    # The caller holds the input throughout; beside it at most the first two maps are alive.
    assert counted.peak_bytes == 4 * (3072 + 2048 + 512)
    # A multiply-add per weight and output, and one per bias and output
    assert counted.gflops == 2 * (2048 * 28 + 512 * 73 + 512 * 9) / 1e9


def test_what_training_keeps_by_hand():
    # Convolutions keep their inputs; batch normalisation keeps its own input; the activation works in place on its
    # output, which is the next convolution's input. The last map's gradient needs nothing.
    assert kept_bytes(row(), 32) == 4 * (3072 + 2 * 2048 + 2 * 512)


@pytest.mark.parametrize("name", ["yolov4-tiny", "yolov7-tiny"])
def test_footprints_grow_with_the_area(name):
    stride = max(get_spec(name).strides)
    with torch.device("meta"):
        model = build_model(name, 3, width=0.25)
    near, far = footprint(model, 2 * stride), footprint(model, 5 * stride)
    assert near.at(5 * stride) == far
    assert far.at(2 * stride) == near
    assert kept_bytes(model, 5 * stride) * 4 == kept_bytes(model, 2 * stride) * 25


def test_what_is_kept_is_what_a_real_step_keeps():
    torch.manual_seed(0)
    model = row().train()
    own = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        maps = model(torch.rand(4, 3, 32, 32))
    statistics = 2 * 2 * 8 * 4  # two normalisations keep a mean and a deviation of 8 channels
    total = sum(size for address, size in kept.items() if address not in own) - statistics
    assert len(maps) == 1
    assert total == 4 * kept_bytes(model, 32)


def test_checkpointing_does_not_change_the_count():
    model = build_model("yolov4-tiny", 3, width=0.125)
    plain = kept_bytes(model, 64)
    model.body.checkpointing = True
    assert kept_bytes(model, 64) == plain
    assert model.body.checkpointing
