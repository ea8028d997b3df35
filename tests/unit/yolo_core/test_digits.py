"""Scenes of digits: boxes tight around the ink, inside the image, visible, and repeatable."""

import numpy as np
import pytest

from yolo_core.data import digits
from yolo_core.data.digits import scene

GLYPHS = np.zeros((3, 8, 8))
GLYPHS[0, 1:7, 2:6] = 1.0  # a block 4 wide, 6 high
GLYPHS[1, 0:8, 3:5] = 1.0  # a vertical bar
GLYPHS[2, 2:6, 0:8] = 1.0  # a horizontal bar
LABELS = np.array([4, 1, 7])
GREY = [np.full((120, 160, 3), 40, np.uint8)]


def scenes(count: int, size_px: int = 320, photographs=GREY):
    return [scene(GLYPHS, LABELS, photographs, size_px=size_px, key=(5, 0, index)) for index in range(count)]


def test_equal_keys_give_equal_scenes_and_others_do_not():
    first, again, other = (
        scene(GLYPHS, LABELS, GREY, size_px=96, key=key) for key in ((1, 0, 2), (1, 0, 2), (1, 1, 2))
    )
    assert (first.image == again.image).all()
    assert (first.xywh_px == again.xywh_px).all()
    assert first.image.shape != other.image.shape or (first.image != other.image).any()


@pytest.mark.parametrize("size_px", [64, 320, 640])
def test_boxes_are_inside_and_the_longer_side_is_as_requested(size_px):
    for drawn in scenes(30, size_px):
        height, width = drawn.image.shape[:2]
        assert max(height, width) == size_px
        assert drawn.xywh_px.shape == (len(drawn.labels), 4)
        assert (drawn.xywh_px >= (0, 0, 1, 1)).all()
        assert (drawn.xywh_px[:, :2] + drawn.xywh_px[:, 2:] <= (width, height)).all()
        assert set(drawn.labels) <= set(LABELS)


def test_boxes_are_tight_around_contrasting_ink():
    checked = 0
    for drawn in scenes(60):
        if len(drawn.labels) != 1:
            continue
        background = np.median(drawn.image.reshape(-1, 3), axis=0)
        ink = np.abs(drawn.image.astype(int) - background).max(axis=2) > 40
        x, y, w, h = drawn.xywh_px[0]
        rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
        edges = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        assert np.abs(np.array(edges) - (x, y, x + w, y + h)).max() <= 2
        checked += 1
    assert checked >= 3


def test_overlapped_objects_stay_visible():
    overlaps = 0
    for drawn in scenes(60):
        owner = np.full(drawn.image.shape[:2], -1)
        for index, (x, y, w, h) in enumerate(drawn.xywh_px):
            owner[y : y + h, x : x + w] = index
        for index, (_, _, w, h) in enumerate(drawn.xywh_px):
            visible = (owner == index).sum() / (w * h)
            assert visible >= digits.MIN_VISIBLE
            overlaps += visible < 1
    assert overlaps > 10


def test_all_three_size_ranges_and_some_empty_images():
    drawn = scenes(100)
    areas = np.concatenate([item.xywh_px[:, 2] * item.xywh_px[:, 3] for item in drawn])
    shares = np.histogram(areas, [0, 32**2, 96**2, np.inf])[0] / len(areas)
    assert (shares > 0.1).all()
    assert 1 <= sum(len(item.labels) == 0 for item in drawn) <= 15  # 4 % of 100 = 4
    assert max(len(item.labels) for item in drawn) <= digits.MAX_OBJECTS
