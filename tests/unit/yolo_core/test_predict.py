"""Boxes found on letterboxed canvases are mapped back to pixels of their image."""

import pytest
import torch
from spots import find_spot, write_spots

from yolo_core.data.coco import load_split
from yolo_core.errors import Stopped
from yolo_core.evaluate.coco_metrics import score
from yolo_core.evaluate.predict import predict, to_device
from yolo_core.evaluate.suppression import Suppression

SCENES = [
    ((300, 150), (30, 20, 120, 60)),
    ((100, 200), (10, 100, 60, 80)),
    ((64, 64), (8, 8, 40, 40)),
    ((500, 300), (0, 0, 500, 300)),
    ((257, 131), (100, 31, 99, 77)),
]
SETTINGS = {"size": 128, "batch": 2, "suppression": Suppression(conf=0.1, iou=0.65, max_detections=10)}


@pytest.fixture
def dataset(tmp_path):
    return load_split(write_spots(tmp_path / "data", SCENES), "val")


@pytest.mark.parametrize("rect", [True, False])
def test_boxes_are_mapped_back_to_their_images(dataset, rect):
    found = predict(find_spot, dataset, **SETTINGS, rect=rect)
    assert found.image_id.tolist() == [1, 2, 3, 4, 5]
    assert set(found.category_id.tolist()) == {5}
    for xywh, ((width, height), box) in zip(found.xywh_px.tolist(), SCENES, strict=True):
        # An edge is found to one pixel of the canvas, whose longer side is 128 px.
        assert xywh == pytest.approx(box, abs=2 * max(width, height) / 128)
        x, y, w, h = xywh
        assert x >= 0
        assert y >= 0
        assert x + w <= width + 1e-3
        assert y + h <= height + 1e-3
    assert score(dataset.annotation_path, found).figures["AP50"] == pytest.approx(1)


def test_boxes_outside_the_image_are_dropped(dataset):
    outside = torch.tensor([[-50.0, -50, 20, 20, 1, 1]])
    assert len(predict(lambda images: outside.expand(len(images), 1, 6), dataset, **SETTINGS)) == 0


def test_progress_counts_batches(dataset):
    seen = []

    def progress(items, label, total=None):
        for item in items:
            seen.append((label, total))
            yield item

    predict(find_spot, dataset, **SETTINGS, label="look", progress=progress)
    assert seen == [("look", 3)] * 3  # 5 images, 2 a batch


def test_images_reach_the_predictor_as_floats_in_range():
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    assert to_device(images, "cpu").flatten().tolist() == pytest.approx([0, 0.2, 1])


def test_a_prediction_that_should_stop_ends_between_batches(dataset):
    answers = iter([False, False, True])
    seen = []

    def predictor(images):
        seen.append(len(images))
        return find_spot(images)

    with pytest.raises(Stopped):
        predict(predictor, dataset, **SETTINGS, should_stop=lambda: next(answers))
    assert seen == [2, 2]
