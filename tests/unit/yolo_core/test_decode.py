"""Decoding raw maps to boxes, worked out by hand for both codings."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from yolo_core.models import build_model
from yolo_core.models.decode import decode, decode_boxes
from yolo_core.models.spec import DARKNET_CODING, SIGMOID_CODING


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def box_of(raw: list[float], coding) -> list[float]:
    """One prediction in cell (3, 1) of stride 16 with an anchor of 20 x 40 px."""
    return decode_boxes(torch.tensor(raw), torch.tensor([3.0, 1.0]), torch.tensor([20.0, 40.0]), 16, coding).tolist()


def test_sigmoid_coding():
    # x: (2 x 3/4 - 1/2 + 3) x 16 = 64; y: (2 x 1/2 - 1/2 + 1) x 16 = 24; w: (2 x 3/4)^2 x 20 = 45; h: (2 x 1/4)^2 x 40
    raw = [logit(0.75), 0.0, logit(0.75), logit(0.25)]
    assert box_of(raw, SIGMOID_CODING) == pytest.approx([64, 24, 45, 10])


def test_exponential_coding():
    # x: (1.05 x 3/4 - .025 + 3) x 16 = 60.2; y: (1.05 x 1/2 - .025 + 1) x 16 = 24; w: 2 x 20; h: 40 / 4
    raw = [logit(0.75), 0.0, math.log(2), -math.log(4)]
    assert box_of(raw, DARKNET_CODING) == pytest.approx([60.2, 24, 40, 10])


@given(raw=st.lists(st.floats(-20, 20), min_size=4, max_size=4))
def test_sigmoid_boxes_stay_near_their_cell_and_anchor(raw):
    x, y, w, h = box_of(raw, SIGMOID_CODING)
    assert 2.5 * 16 - 1e-3 <= x <= 4.5 * 16 + 1e-3  # half a cell beyond the cell's edges
    assert 0.5 * 16 - 1e-3 <= y <= 2.5 * 16 + 1e-3
    assert 0 <= w <= 4 * 20
    assert 0 <= h <= 4 * 40


def test_all_levels_in_order():
    model = build_model("yolov4-tiny", num_classes=2, width=0.125)
    maps = [torch.zeros(2, 3, 4, 6, 7), torch.zeros(2, 3, 2, 3, 7)]
    maps[0][1, 2, 3, 5] = torch.tensor([0, 0, 0, 0, logit(0.9), logit(0.2), logit(0.6)])
    decoded = decode(maps, model)
    assert decoded.shape == (2, 3 * 4 * 6 + 3 * 2 * 3, 7)
    # level 0, anchor 2 (81 x 82), row 3, column 5: index (2 x 4 + 3) x 6 + 5 = 71; centre (5.5, 3.5) x 16
    assert decoded[1, 71].tolist() == pytest.approx([88, 56, 81, 82, 0.9, 0.2, 0.6])
    # level 1, anchor 1 (135 x 169), row 1, column 2: 72 + (1 x 2 + 1) x 3 + 2 = 83; centre (2.5, 1.5) x 32
    assert decoded[0, 83].tolist() == pytest.approx([80, 48, 135, 169, 0.5, 0.5, 0.5])


def test_half_precision_maps_decode_in_float32():
    model = build_model("yolov4-tiny", num_classes=2, width=0.125)
    maps = [torch.randn(1, 3, 4, 4, 7).half(), torch.randn(1, 3, 2, 2, 7).half()]
    decoded = decode(maps, model)
    assert decoded.dtype == torch.float32
    assert torch.equal(decoded, decode([m.float() for m in maps], model))


def test_the_anchors_in_use_are_those_given_to_the_model():
    anchors = (((8.0, 9.0),), ((10.0, 11.0),))
    model = build_model("yolov4-tiny", num_classes=1, width=0.125, anchors=anchors)
    raw = [torch.zeros(1, 1, 2, 2, 6), torch.zeros(1, 1, 1, 1, 6)]
    assert decode(raw, model)[0, :, 2:4].tolist() == [[8, 9]] * 4 + [[10, 11]]
