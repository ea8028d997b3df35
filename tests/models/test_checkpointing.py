"""Recomputing activations: the same gradients and statistics, less memory."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from yolo_core.models import Detector, build_model
from yolo_core.models.detector import TrainingGraph


def pair(name: str) -> tuple[Detector, Detector]:
    """A small model and a copy that recomputes."""
    torch.manual_seed(0)
    model = build_model(name, 2, width=0.125, depth=0.34).train()
    again = copy.deepcopy(model)
    again.body.checkpointing = True
    return model, again


def backward(model: Detector, images: Tensor) -> None:
    torch.stack([raw.square().mean() for raw in TrainingGraph(model)(images)]).sum().backward()


@pytest.mark.parametrize(
    "name",
    [
        *("yolov4-tiny", "yolov4-csp", "yolov7-w6"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("tinycd53s", "yolov4-p6", "d53-panspp-leaky")),
    ],
)
def test_gradients_and_statistics_are_those_without(name):
    model, again = pair(name)
    images = torch.rand(2, 3, 128, 128)
    for one in (model, again):
        backward(one, images)
        backward(one, images)  # statistics that moved twice in one step would show in the second
    for (parameter_name, a), b in zip(model.named_parameters(), again.parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=0, msg=parameter_name)
    for buffer_name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[buffer_name]), buffer_name


def test_frozen_normalisation_stays_frozen():
    model, again = pair("yolov4-csp")
    images = torch.rand(2, 3, 64, 64)
    for one in (model, again):
        one.body.get_submodule("stages").eval()
        backward(one, images)
    for a, b in zip(model.parameters(), again.parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert torch.equal(a.grad, b.grad)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


def test_evaluation_recomputes_nothing():
    _, again = pair("yolov4-tiny")
    calls = []
    again.body.get_submodule("stem").register_forward_pre_hook(lambda *_: calls.append(1))
    backward(again.eval(), torch.rand(1, 3, 64, 64))
    assert len(calls) == 1
    backward(again.train(), torch.rand(1, 3, 64, 64))
    assert len(calls) == 3


def run_and_weigh(part: nn.Module, images: Tensor) -> tuple[Any, int]:
    """What `part` gives for two images and the bytes per image that autograd holds from then on, parameters aside."""
    held: dict[int, torch.UntypedStorage] = {}

    def hold(tensor: Tensor) -> Tensor:
        if len(tensor) == 2:  # of both images, not of the channels
            held[id(tensor.untyped_storage())] = tensor.untyped_storage()
        return tensor

    with saved_tensors_hooks(hold, lambda tensor: tensor):
        output = part(images)
    return output, sum(storage.nbytes() for storage in held.values()) // 2


def without_memory(name: str, width: float, size: int) -> tuple[Detector, Tensor]:
    with torch.device("meta"):
        return build_model(name, 2, width=width).train(), torch.empty(2, 3, size, size)


@pytest.mark.parametrize(
    "name", ["yolov4-csp", *(pytest.param(name, marks=pytest.mark.slow) for name in ("yolov4-p7", "yolov7-e6e"))]
)
def test_little_is_kept_between_the_passes(name):
    model, images = without_memory(name, width=0.25, size=256)
    _, plain = run_and_weigh(TrainingGraph(model), images)
    model.body.checkpointing = True
    _, kept = run_and_weigh(TrainingGraph(model), images)
    assert kept < plain / 5


@pytest.mark.slow
def test_p7_at_its_size_takes_less_than_half_with_the_dearest_part_recomputed():
    model, images = without_memory("yolov4-p7", width=1, size=1536)
    _, plain = run_and_weigh(model, images)
    x, parts = images, []
    for part in (model.body.get_submodule("stem"), *model.body.get_submodule("stages").children()):
        x, weight = run_and_weigh(part, x)
        parts.append(weight)
    model.body.checkpointing = True
    _, kept = run_and_weigh(model, images)
    assert kept + max(parts) < plain / 2
