"""Detections on a dataset whose images are seen whole and in tiles (`yolo_core.inference.tiling`)."""

import numpy as np

from yolo_core import progress as progress_
from yolo_core.boxes import xyxy_to_xywh
from yolo_core.data.coco import DetectionDataset
from yolo_core.evaluate.detections import Detections
from yolo_core.evaluate.suppression import Suppression
from yolo_core.inference.detector import Tiled
from yolo_core.inference.result import Result


def predict_tiled(
    detector: Tiled, dataset: DetectionDataset, suppression: Suppression, progress: progress_.Progress
) -> Detections:
    """Detections on every image, in the order of the dataset, rounded as those of `yolo_core.evaluate.predict`."""
    images = (dataset.load(index) for index in range(len(dataset)))
    found = progress(detector.detections(images, suppression), "evaluate tiled", total=len(dataset))
    return Detections.joined(
        _on_image(result, record.id, dataset.category_ids) for result, record in zip(found, dataset.images, strict=True)
    )


def passes_per_image(detector: Tiled, dataset: DetectionDataset) -> float:
    """How many tiles and whole images the network sees, a mean over the images."""
    counts = [1 + len(detector.tiling.regions(record.width, record.height)) for record in dataset.images]
    return round(float(np.mean(counts)), 3)


def _on_image(result: Result, image_id: int, category_ids: list[int]) -> Detections:
    return Detections(
        image_id=np.full(len(result), image_id, np.int64),
        category_id=np.asarray(category_ids, np.int64)[result.class_id],
        xywh_px=xyxy_to_xywh(result.xyxy).round(3),
        score=result.score.round(6),
    )
