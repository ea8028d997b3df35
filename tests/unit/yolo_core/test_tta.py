"""Test-time augmentation: every pass finds the same box, whatever its scale and mirroring."""

import pytest
import torch
from spots import find_spot

from yolo_core.evaluate.tta import GREY, TTA, Plain, rescale
from yolo_core.models import build_model


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model("yolov4-tiny", 2, width=0.125)


def test_every_pass_maps_its_boxes_back(model):
    images = torch.full((2, 3, 96, 160), 0.2)
    images[0, :, 20:50, 90:130] = 1
    images[1, :, 5:15, 0:40] = 1
    tta = TTA(model, [1, 0.83, 0.67, 1.5], ["none", "left-right", "none", "left-right"])
    tta.plain = find_spot
    found = tta(images)
    assert found.shape == (2, 4, 6)
    expected = torch.tensor([[110.0, 35, 40, 30], [20, 10, 40, 10]])
    # Resizing moves an edge by at most one pixel of the smaller canvas: 1 / .67 = 1.5 px.
    assert (found[..., :4] - expected[:, None]).abs().max() <= 1.5
    assert torch.equal(found[:, 0, :4], expected)


def test_mirroring_alone_is_exact(model):
    images = torch.full((1, 3, 64, 96), 0.2)
    images[..., 10:30, 60:90] = 1
    tta = TTA(model, [1], ["left-right"])
    tta.plain = find_spot
    assert tta(images)[0, 0].tolist() == [75, 20, 30, 20, 1, 1]


def test_canvases_are_whole_strides_of_grey():
    # 96 x 160 by 0.67: 64 x 107, padded on the right to 128.
    canvas, factor = rescale(torch.ones(1, 3, 96, 160), 0.67, 32)
    assert canvas.shape == (1, 3, 64, 128)
    assert factor == (107 / 160, 64 / 96)
    assert torch.equal(canvas[..., 107:], torch.full((1, 3, 64, 21), GREY))
    assert (canvas[..., :107] > 0.99).all()


def test_a_real_model_pools_all_passes_and_keeps_the_plain_ones(model):
    images = torch.rand(1, 3, 64, 96)
    plain, pooled = Plain(model)(images), TTA(model, [1, 0.67], ["none", "left-right"])(images)
    # 3 anchors; strides 16 and 32: 4x6 + 2x3 = 30 cells; the second canvas is 64 x 64: 16 + 4 = 20 cells.
    assert plain.shape == (1, 90, 7)
    assert pooled.shape == (1, 150, 7)
    assert torch.equal(pooled[:, :90], plain)
    assert not plain.requires_grad
    assert not model.training
