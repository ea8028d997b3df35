"""Box conversions and the IoU family, with the arithmetic beside the expectation."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from yolo_core import boxes

PAIRS = [
    (boxes.cxcywh_to_xyxy, boxes.xyxy_to_cxcywh),
    (boxes.xywh_to_xyxy, boxes.xyxy_to_xywh),
    (boxes.cxcywh_to_xywh, boxes.xywh_to_cxcywh),
]
number = st.floats(-4096, 4096, width=32)
box = st.lists(number, min_size=4, max_size=4)


def one(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_one_box_in_three_formats():
    xyxy, cxcywh, xywh = one(10, 20, 16, 30), one(13, 25, 6, 10), one(10, 20, 6, 10)
    assert boxes.xyxy_to_cxcywh(xyxy).tolist() == cxcywh.tolist()
    assert boxes.cxcywh_to_xyxy(cxcywh).tolist() == xyxy.tolist()
    assert boxes.xyxy_to_xywh(xyxy).tolist() == xywh.tolist()
    assert boxes.xywh_to_xyxy(xywh).tolist() == xyxy.tolist()
    assert boxes.cxcywh_to_xywh(cxcywh).tolist() == xywh.tolist()
    assert boxes.xywh_to_cxcywh(xywh).tolist() == cxcywh.tolist()


@pytest.mark.parametrize(("there", "back"), PAIRS)
@given(values=st.lists(box, max_size=5))
def test_conversions_undo_each_other_for_arrays_and_tensors(there, back, values):
    array = np.array(values, dtype=np.float64).reshape(-1, 4)
    converted = there(array)
    assert isinstance(converted, np.ndarray)
    np.testing.assert_allclose(back(converted), array, atol=1e-8)
    np.testing.assert_allclose(there(back(array)), array, atol=1e-8)
    np.testing.assert_array_equal(there(torch.from_numpy(array)).numpy(), converted)


def test_iou_family_of_two_overlapping_boxes():
    a, b = one(0, 0, 4, 2), one(2, 1, 6, 5)
    # overlap 2 x 1 = 2; union 8 + 16 - 2 = 22; hull 6 x 5 = 30; centres (2, 1) and (4, 3): 4 + 4 = 8; diagonal 61
    assert boxes.iou(a, b).item() == pytest.approx(2 / 22)
    assert boxes.giou(a, b).item() == pytest.approx(2 / 22 - 8 / 30)
    assert boxes.diou(a, b).item() == pytest.approx(2 / 22 - 8 / 61)
    v = 4 / math.pi**2 * (math.atan(4 / 2) - math.atan(4 / 4)) ** 2
    alpha = v / (1 - 2 / 22 + v)
    assert boxes.ciou(a, b).item() == pytest.approx(2 / 22 - 8 / 61 - alpha * v)


def test_iou_family_of_boxes_apart():
    a, b = one(0, 0, 1, 1), one(2, 0, 3, 1)
    # no overlap; union 2; hull 3 x 1; centres 2 apart; diagonal squared 10; same shape
    assert boxes.iou(a, b).item() == 0
    assert boxes.giou(a, b).item() == pytest.approx(-1 / 3)
    assert boxes.diou(a, b).item() == pytest.approx(-4 / 10)
    assert boxes.ciou(a, b).item() == pytest.approx(-4 / 10)


@given(values=box)
def test_a_box_with_area_is_equal_to_itself(values):
    x, y, w, h = values
    a = boxes.xywh_to_xyxy(one(x, y, abs(w) + 0.5, abs(h) + 0.5))
    for measure in (boxes.iou, boxes.giou, boxes.diou, boxes.ciou):
        assert measure(a, a).item() == pytest.approx(1, abs=1e-6)


@given(first=box, second=box)
def test_the_family_is_symmetric_and_bounded(first, second):
    a, b = (boxes.xywh_to_xyxy(one(x, y, abs(w), abs(h))) for x, y, w, h in (first, second))
    for measure, low in ((boxes.iou, 0), (boxes.giou, -1), (boxes.diou, -1), (boxes.ciou, -2)):
        value = measure(a, b).item()
        assert low - 1e-6 <= value <= 1 + 1e-6
        assert measure(b, a).item() == pytest.approx(value, abs=1e-9)


def test_empty_boxes_give_finite_values_and_gradients():
    point = torch.zeros(1, 4, requires_grad=True)
    value = boxes.ciou(point, torch.tensor([[0.0, 0.0, 2.0, 2.0]])).sum() + boxes.ciou(point, point.detach()).sum()
    value.backward()
    assert torch.isfinite(value)
    assert point.grad is not None
    assert torch.isfinite(point.grad).all()


def test_ciou_sends_no_gradient_through_its_weight():
    a, b = one(0, 0, 4, 2).requires_grad_(), one(2, 1, 6, 5)
    boxes.ciou(a, b).backward()
    # the same by hand with alpha a plain number: target angle 45 degrees, IoU 2 / 22
    fixed = one(0, 0, 4, 2).requires_grad_()
    v = 4 / math.pi**2 * (torch.atan((fixed[2] - fixed[0]) / (fixed[3] - fixed[1])) - math.pi / 4) ** 2
    alpha = v.item() / (1 - 2 / 22 + v.item())
    (boxes.diou(fixed, b) - alpha * v).backward()
    torch.testing.assert_close(a.grad, fixed.grad)


def test_matrix_holds_every_pair():
    a = torch.tensor([[0.0, 0, 2, 2], [0, 0, 4, 4], [9, 9, 9, 9]])
    b = torch.tensor([[0.0, 0, 2, 4], [2, 2, 4, 4]])
    # rows: 4 / 8 and 0 / 8; 8 / 16 and 4 / 16; an empty box overlaps nothing
    torch.testing.assert_close(boxes.box_iou(a, b), torch.tensor([[0.5, 0.0], [0.5, 0.25], [0.0, 0.0]]))
    assert boxes.box_iou(a, b[:0]).shape == (3, 0)
