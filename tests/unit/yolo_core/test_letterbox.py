"""Letterbox: where the image is placed, and boxes there and back."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from yolo_core.data.letterbox import Letterbox, letterbox

side = st.integers(1, 300)


def test_a_wide_image_is_scaled_up_and_centred():
    """40 x 20 into 80 high, 100 wide: scale min(80 / 20, 100 / 40) = 2.5 -> 100 x 50, (80 - 50) / 2 = 15 above."""
    canvas, box = letterbox(np.full((20, 40, 3), 200, np.uint8), (80, 100))
    assert box == Letterbox(scale_x=2.5, scale_y=2.5, pad_x=0, pad_y=15)
    assert canvas.shape == (80, 100, 3)
    assert (canvas[:15] == 114).all()
    assert (canvas[65:] == 114).all()
    assert (canvas[15:65] == 200).all()
    moved = box.to_canvas(np.array([[4.0, 2.0, 40.0, 20.0]]))
    np.testing.assert_array_equal(moved, [[10, 20, 100, 65]])  # 4 * 2.5, 2 * 2.5 + 15, 40 * 2.5, 20 * 2.5 + 15


def test_downscaling_averages_pixels():
    """Columns of 0 and 200 in turn, halved: every pixel is their mean; interpolation alone could keep either."""
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    canvas, _ = letterbox(stripes, (32, 32))
    assert (canvas == 100).all()


def test_an_image_that_fits_is_not_resampled():
    image = np.random.default_rng(0).integers(0, 256, (20, 32, 3), dtype=np.uint8)
    canvas, box = letterbox(image, (32, 32), fill=0)
    np.testing.assert_array_equal(canvas[6:26], image)
    assert box == Letterbox(1, 1, 0, 6)


@given(side, side, side, side)
def test_the_image_fills_the_canvas_in_one_direction_and_is_centred(height, width, canvas_height, canvas_width):
    canvas, box = letterbox(np.full((height, width, 3), 255, np.uint8), (canvas_height, canvas_width), fill=0)
    assert canvas.shape == (canvas_height, canvas_width, 3)
    rows, columns = canvas[:, :, 0].any(axis=1), canvas[:, :, 0].any(axis=0)
    assert rows.all() or columns.all()
    above, below = rows.argmax(), rows[::-1].argmax()
    left, right = columns.argmax(), columns[::-1].argmax()
    assert (box.pad_x, box.pad_y) == (left, above)
    assert 0 <= below - above <= 1
    assert 0 <= right - left <= 1
    np.testing.assert_allclose(  # the image's corners are those of the drawn rectangle
        box.to_canvas(np.array([0.0, 0, width, height])), [left, above, canvas_width - right, canvas_height - below]
    )


@given(side, side, side, side, st.lists(st.floats(-400, 700), min_size=4, max_size=4))
def test_boxes_come_back(height, width, canvas_height, canvas_width, box_xyxy_px):
    _, box = letterbox(np.zeros((height, width, 3), np.uint8), (canvas_height, canvas_width))
    boxes = np.array([box_xyxy_px])
    np.testing.assert_allclose(box.to_image(box.to_canvas(boxes)), boxes, atol=1e-9)
    np.testing.assert_allclose(box.to_canvas(box.to_image(boxes)), boxes, atol=1e-9)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numpy_and_torch_agree_and_keep_their_type(dtype):
    box = Letterbox(0.65, 0.651, 16, 89)
    boxes = np.random.default_rng(0).uniform(0, 400, (7, 4)).astype(dtype)
    for move in (box.to_canvas, box.to_image):
        moved, as_torch = move(boxes), move(torch.from_numpy(boxes))
        assert moved.dtype == boxes.dtype
        assert as_torch.dtype == getattr(torch, dtype)
        np.testing.assert_allclose(as_torch.numpy(), moved, rtol=1e-6)
    assert box.to_image(np.zeros((0, 4))).shape == (0, 4)
