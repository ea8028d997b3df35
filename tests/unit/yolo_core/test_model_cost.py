"""Counting parameters and operations."""

import torch

from yolo_core.models import build_model
from yolo_core.models.cost import cost
from yolo_core.models.fuse import fuse


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
