"""YOLOv7 against the authors' code and Darknet's configurations: see tests/golden/README.md for how those were run."""

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from formula_weights import draw, fill, image
from torch import Tensor, nn

from yolo_core.models import Detector, build_model
from yolo_core.models.blocks import ConvBnAct
from yolo_core.models.decode import decode
from yolo_core.models.detector import TrainingGraph
from yolo_core.models.official_names_v7 import DARKNET_ORDER, PYTORCH_NAMES, darknet_input_order
from yolo_core.models.rep import Implicit, RepConv

GOLDEN = Path(__file__).parents[1] / "golden"
WIDTH, CLASSES = 0.125, 2


def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"{name}.npz") as file:
        return dict(file)


def small(name: str) -> tuple[Detector, int]:
    """In float64, which leaves no doubt about rounding; and the side of its input."""
    model = build_model(name, CLASSES, width=WIDTH).double().eval()
    return model, 2 * max(model.strides) if model.auxiliary is not None else 64


def assert_close(found: Tensor, expected: np.ndarray):
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", PYTORCH_NAMES)
@torch.no_grad()
def test_outputs_are_those_of_the_authors_code(name):
    model, size = small(name)
    fill(TrainingGraph(model).eval(), size)
    maps = model.training_maps(image(size))
    levels, expected = len(model.strides), golden(name)
    step = 1 if model.auxiliary is None else 5  # every fifth row is kept of the large ones
    assert_close(decode(maps[:levels], model)[0, ::step], expected["decoded"])
    if model.auxiliary is not None:
        assert_close(torch.cat([raw.flatten(1, 3) for raw in maps[levels:]], 1)[0, ::step], expected["auxiliary"])


@pytest.mark.parametrize("name", PYTORCH_NAMES)
def test_every_tensor_has_its_name_in_the_authors_files(name):
    model, _ = small(name)
    names, own = PYTORCH_NAMES[name](model), model.state_dict()
    assert names.keys() == own.keys()
    lines = sorted(f"{theirs} {tuple(own[ours].shape)}" for ours, theirs in names.items())
    assert zlib.crc32("\n".join(lines).encode()) == golden(name)["names"]


@pytest.mark.parametrize("name", DARKNET_ORDER)
@torch.no_grad()
def test_outputs_are_those_of_the_darknet_configuration(name):
    model, size = small(name)
    reordered = darknet_input_order(model)
    for place, layer in enumerate(DARKNET_ORDER[name](model)):
        take(model.get_submodule(layer), place, reordered.get(layer))
    for module in model.modules():
        if isinstance(module, Implicit):
            module.reset_to_neutral()
        if isinstance(module, RepConv):
            module.silence_pointwise()
    maps = model(image(size))
    assert_close(torch.cat([raw.flatten(1, 3) for raw in maps], 1)[0], golden(name)["darknet"])


def take(layer: nn.Module, place: int, order: Tensor | None):
    """Fill a convolution with what the formula draws for the file's convolution at `place`."""
    conv = layer.conv if isinstance(layer, ConvBnAct) else layer
    assert isinstance(conv, nn.Conv2d)
    weight = draw(f"{place}.conv.weight", conv.weight.shape)
    conv.weight.copy_(weight if order is None else weight[:, order])
    if isinstance(layer, ConvBnAct):
        for tensor in ("weight", "bias", "running_mean", "running_var"):
            value = layer.bn.state_dict()[tensor]
            value.copy_(draw(f"{place}.bn.{tensor}{'.weight' if tensor == 'running_var' else ''}", value.shape))
    else:
        assert conv.bias is not None
        conv.bias.copy_(draw(f"{place}.conv.bias", conv.bias.shape))


def test_only_the_tiny_configuration_orders_inputs_in_another_way():
    assert darknet_input_order(build_model("yolov7", 2, width=WIDTH)) == {}
    model = build_model("yolov7-tiny", 2, width=0.25)
    order = darknet_input_order(model)["body.stages.0.1.merge"]
    # Here: second 3x3, first 3x3, entering 1x1, crossing 1x1, of 8 channels each; there the other way round.
    assert order.tolist() == [*range(24, 32), *range(16, 24), *range(8, 16), *range(8)]
    assert len(darknet_input_order(model)) == 4 + 2 + 2 + 1  # stages, up, down, pyramid pooling
