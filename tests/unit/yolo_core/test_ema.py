"""The average of the weights, by hand."""

import pytest
import torch
from torch import nn

from yolo_core.train.ema import EMA


def model() -> nn.Sequential:
    layers = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1))
    nn.init.constant_(layers[0].weight, 1.0)
    return layers


def test_update_moves_weights_and_buffers_and_copies_counters() -> None:
    source = model()
    average = EMA(source)
    nn.init.constant_(source[0].weight, 3.0)
    source[1].running_mean.fill_(10.0)
    source[1].num_batches_tracked.fill_(7)
    average.update(0.75)
    layer, norm = average.module
    assert layer.weight.item() == pytest.approx(1.5)  # 0.75 x 1 + 0.25 x 3
    assert norm.running_mean.item() == pytest.approx(2.5)  # 0.75 x 0 + 0.25 x 10
    assert norm.num_batches_tracked.item() == 7
    average.update(0.75)
    assert layer.weight.item() == pytest.approx(1.875)  # 0.75 x 1.5 + 0.25 x 3


def test_zero_decay_copies_the_model() -> None:
    source = model()
    average = EMA(source)
    nn.init.constant_(source[0].weight, 3.0)
    average.update(0.0)
    assert average.module[0].weight.item() == 3.0


def test_the_average_is_frozen_in_evaluation_mode_and_the_model_is_left_alone() -> None:
    source = model().train()
    average = EMA(source)
    assert source.training
    assert not any(m.training for m in average.module.modules())
    assert not any(p.requires_grad for p in average.module.parameters())
    average.update(0.5)
    assert source[0].weight.item() == 1.0
    assert source[0].weight.requires_grad


def test_weights_loaded_into_the_average_are_the_ones_updated() -> None:
    source = model()
    average = EMA(source)
    average.module.load_state_dict({**average.module.state_dict(), "0.weight": torch.full((1, 1, 1, 1), 5.0)})
    average.update(0.5)
    assert average.module[0].weight.item() == pytest.approx(3.0)  # 0.5 x 5 + 0.5 x 1
