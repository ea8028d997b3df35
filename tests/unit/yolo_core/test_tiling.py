"""Tiles: they cover the image, and what they find is merged to one box per object, in any order."""

from itertools import pairwise

import numpy as np
import pytest
import small_detector
from hypothesis import given
from hypothesis import strategies as st

from yolo_core import Detector, UserError
from yolo_core.evaluate.suppression import Suppression
from yolo_core.inference.tiling import Tiling, is_cut, merged

SUPPRESSION = Suppression(conf=0.1, iou=0.5, max_detections=100)


def rows(*boxes: tuple[float, ...]) -> np.ndarray:
    """Boxes of x1, y1, x2, y2, score, class."""
    return np.array(boxes, float).reshape(-1, 6)


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(16, 900), st.floats(0, 0.9))
def test_tiles_cover_the_image_and_overlap(width: int, height: int, size: int, overlap: float):
    regions = Tiling(size, overlap).regions(width, height)
    if max(width, height) <= size:
        assert regions == []
        return
    for low, high, length in ((0, 2, width), (1, 3, height)):
        spans = sorted({(region[low], region[high]) for region in regions})
        assert spans[0][0] == 0
        assert spans[-1][1] == length
        assert all(end - start == min(size, length) for start, end in spans)
        # Starts are rounded to whole pixels, so that two may share up to one less.
        assert all(a[1] - b[0] >= int(overlap * size) - 1 for a, b in pairwise(spans))


def test_the_number_of_tiles_is_the_least():
    # 1000 px in tiles of 400 that share at least 100: steps of at most 300, so 600 px of steps take two
    assert Tiling(400, 0.25).regions(1000, 300) == [(0, 0, 400, 300), (300, 0, 700, 300), (600, 0, 1000, 300)]


def test_boxes_at_inner_borders_are_cut():
    found = np.array([[0, 50, 40, 90], [360, 50, 399, 90], [100, 0, 140, 40], [100, 260, 140, 299.5], [9, 9, 50, 50.0]])
    # the left and the upper border of the region are those of the image
    assert is_cut(found, (0, 0, 400, 300), 1000, 900).tolist() == [False, True, False, True, False]
    assert not is_cut(found, (0, 0, 400, 300), 400, 300).any()


def test_an_object_seen_in_two_tiles_is_one():
    # a whole view of it, and a cut one with a higher score: IoU 1/4, but the part is covered
    found = merged(rows((0, 0, 40, 20, 0.6, 0), (20, 0, 30, 20, 0.9, 0)), np.array([False, True]), SUPPRESSION)
    assert found.tolist() == [[0, 0, 40, 20, 0.6, 0]]


def test_a_part_of_another_class_stays():
    found = merged(rows((0, 0, 40, 20, 0.6, 0), (20, 0, 30, 20, 0.9, 1)), np.array([False, True]), SUPPRESSION)
    assert found[:, 5].tolist() == [1, 0]


def test_parts_that_nothing_covers_are_joined():
    # 30 of 40 px and of 50 px are common to both
    found = merged(rows((0, 0, 40, 20, 0.5, 0), (10, 0, 60, 20, 0.7, 0)), np.array([True, True]), SUPPRESSION)
    assert found.tolist() == [[0, 0, 60, 20, 0.7, 0]]


def test_two_objects_at_a_border_stay_two():
    found = merged(rows((0, 0, 40, 20, 0.5, 0), (36, 0, 60, 20, 0.7, 0)), np.array([True, True]), SUPPRESSION)
    assert len(found) == 2


boxes = st.tuples(*[st.integers(0, 20)] * 4, st.sampled_from([0.2, 0.5, 0.7]), st.integers(0, 1), st.booleans())


@given(st.lists(boxes, max_size=12), st.randoms())
def test_the_order_of_the_tiles_does_not_matter(given_boxes, random):
    def found(items):
        table = rows(*((x, y, x + w + 1, y + h + 1, score, k) for x, y, w, h, score, k, _ in items))
        return merged(table, np.array([item[-1] for item in items], bool), SUPPRESSION)

    mixed = list(given_boxes)
    random.shuffle(mixed)
    np.testing.assert_array_equal(found(given_boxes), found(mixed))


@pytest.mark.parametrize(("size", "overlap", "name"), [(0, 0.2, "tile"), (64, 1.0, "overlap"), (64, -0.1, "overlap")])
def test_tiles_out_of_range_are_refused(size: int, overlap: float, name: str):
    with pytest.raises(UserError, match=f"^{name} = "):
        Tiling(size, overlap)


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    return Detector.load(small_detector.write(tmp_path_factory.mktemp("project")).weights, device="cpu")


def test_an_image_no_larger_than_a_tile_is_looked_at_once(detector):
    image = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    one, other = detector.tiled(100).predict(image, conf=0.05), detector.predict(image, conf=0.05)
    np.testing.assert_array_equal(one.xyxy, other.xyxy)


def test_each_tile_is_looked_at_as_an_image_of_its_own(detector):
    image = np.random.default_rng(0).integers(0, 255, (96, 180, 3), np.uint8)
    found = detector.tiled(96, 0.1, batch=2).predict(image, conf=0.05, max_detections=10_000)
    parts = [detector.predict(image)] + [detector.predict(image[:, x : x + 96]) for x in (0, 84)]
    assert len(found)
    scores = {round(score, 4) for part in parts for score in part.score.tolist()}
    assert {round(score, 4) for score in found.score.tolist() if score > 0.25} <= scores
