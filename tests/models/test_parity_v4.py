"""Scaled-YOLOv4 against the authors' code and Darknet's configurations: see tests/golden/README.md for the origin."""

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from formula_weights import fill, image
from torch import nn

from yolo_core.models import Detector, build_model, get_spec
from yolo_core.models.blocks import ConvBnAct
from yolo_core.models.decode import decode
from yolo_core.models.official_names_v4 import DARKNET_ORDER, MODULE_LIST_BN_EPS, PYTORCH_NAMES
from yolo_core.models.spec import DARKNET_CODING

GOLDEN = Path(__file__).parents[1] / "golden"
CLASSES = 2


def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"{name}.npz") as file:
        return dict(file)


def small(name: str) -> tuple[Detector, int]:
    """Full depth, in float64 to leave no doubt about rounding; and the side of its input, which the anchors fit.

    Halves of channels: a configuration names them, our stages take half of what they have. At a quarter of the width
    the two agree on every layer; the PyTorch models take halves too and agree at any width.
    """
    spec = get_spec(name)
    size = max(64, *spec.strides)
    shrink = size / spec.native_size
    anchors = tuple(tuple((w * shrink, h * shrink) for w, h in level) for level in spec.anchors)
    coding = DARKNET_CODING if spec.family == "yolov4-tiny" else spec.coding
    width = 0.25 if name in DARKNET_ORDER else 0.125
    return build_model(name, CLASSES, width, anchors=anchors, coding=coding).double().eval(), size


@pytest.mark.parametrize("name", PYTORCH_NAMES)
@torch.no_grad()
def test_decoded_outputs_are_the_originals(name):
    model, size = small(name)
    if name in DARKNET_ORDER:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = MODULE_LIST_BN_EPS
    fill(model, size)
    found = decode(model(image(size)), model)[0].numpy()
    # Less than 1e-4 px, and the rounding of float32 where boxes are larger than 500 px.
    np.testing.assert_allclose(found, golden(name)["decoded"], rtol=2e-7, atol=1e-4)


@pytest.mark.parametrize("name", PYTORCH_NAMES)
def test_every_tensor_has_its_name_in_the_authors_files(name):
    model, _ = small(name)
    names, own = PYTORCH_NAMES[name](model), model.state_dict()
    assert names.keys() == own.keys()
    assert len(set(names.values())) == len(names)
    lines = sorted(f"{theirs} {tuple(own[ours].shape)}" for ours, theirs in names.items())
    assert zlib.crc32("\n".join(lines).encode()) == golden(name)["names"]


@pytest.mark.parametrize("name", DARKNET_ORDER)
def test_the_order_of_a_configuration_has_every_convolution_once(name):
    model, _ = small(name)
    blocks = [layer for layer, module in model.named_modules() if isinstance(module, ConvBnAct)]
    heads = [f"head.levels.{level}" for level in range(len(model.strides))]
    assert sorted(DARKNET_ORDER[name](model)) == sorted(blocks + heads)


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("yolov4-tiny", ["body.out5", "head.levels.1", "body.neck4.reduce", "body.neck4.merge", "head.levels.0"]),
        ("yolov4-csp", ["body.downs.1.path.merge", "body.outs.2", "head.levels.2"]),
        ("yolov4-p5-darknet", ["body.outs.0", "head.levels.0", "body.outs.1", "head.levels.1"]),
    ],
)
def test_heads_stand_where_the_configuration_has_them(name, end):
    order = DARKNET_ORDER[name](small(name)[0])
    place = order.index(end[0])
    assert order[place : place + len(end)] == end
