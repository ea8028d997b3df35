"""Run any predictor over a data set: letterbox, decode, suppress, back to image pixels, as COCO results."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from yolo_core import progress as progress_
from yolo_core.data.coco import DetectionDataset, ImageRecord
from yolo_core.data.letterbox import Letterbox
from yolo_core.data.loader import EvalBatch, val_batches
from yolo_core.device import autocast as autocast_to
from yolo_core.evaluate.nms import nms
from yolo_core.evaluate.tta import Predictor


@torch.no_grad()
def predict(
    predictor: Predictor,
    dataset: DetectionDataset,
    *,
    size: int,
    batch: int,
    conf: float,
    iou: float,
    max_detections: int,
    device: torch.device | str = "cpu",
    rect: bool = True,
    stride: int = 32,
    autocast: torch.dtype | None = None,
    label: str = "evaluate",
    progress: progress_.Progress = progress_.silent,
) -> list[dict[str, Any]]:
    """Detections on every image of `dataset`: COCO result dicts, in the order of the data set.

    size: longer side of the canvas, px; rect: canvases only as high and wide as their batch needs, multiples of
    `stride`, else all are size x size (for predictors of one fixed shape); autocast: precision of the forward pass.
    conf, iou, max_detections: of the suppression.
    """
    device = torch.device(device)
    batches = val_batches(dataset, size=size, batch=batch, stride=stride, rect=rect)
    found: dict[int, list[dict[str, Any]]] = {}
    for part in progress(batches, label, total=-(-len(dataset) // batch)):
        images = to_device(part.images, device)
        with autocast_to(device, autocast):
            decoded = predictor(images)
        kept = nms(decoded, conf, iou, max_detections)
        found.update(batch_results(part, kept, dataset))
    return [detection for index in sorted(found) for detection in found[index]]


def to_device(images: Tensor, device: torch.device | str) -> Tensor:
    """(B, 3, H, W) uint8 -> float32 in 0..1 on `device`, channels last; converted there, so that bytes travel."""
    moved = images.to(device, non_blocking=True)
    return moved.to(torch.float32, memory_format=torch.channels_last).div_(255)


def batch_results(
    part: EvalBatch, kept: Sequence[Tensor], dataset: DetectionDataset
) -> dict[int, list[dict[str, Any]]]:
    """What was kept on each canvas of a batch, as COCO result dicts by index in the data set."""
    return {
        index: as_coco(rows.numpy(), letterbox, dataset.images[index], dataset.category_ids)
        for index, letterbox, rows in zip(part.indices, part.letterboxes, kept, strict=True)
    }


def to_image(rows: np.ndarray, letterbox: Letterbox, width: int, height: int) -> np.ndarray:
    """Detections (n, 6) on a canvas -> on the image: xyxy_px clipped to it; boxes left without area are dropped."""
    rows = rows.copy()
    rows[:, :4] = letterbox.to_image(rows[:, :4])
    rows[:, [0, 2]] = rows[:, [0, 2]].clip(0, width)
    rows[:, [1, 3]] = rows[:, [1, 3]].clip(0, height)
    return rows[(rows[:, 2] > rows[:, 0]) & (rows[:, 3] > rows[:, 1])]


def as_coco(
    rows: np.ndarray, letterbox: Letterbox, record: ImageRecord, category_ids: list[int]
) -> list[dict[str, Any]]:
    """Detections (n, 6) of one canvas as COCO result dicts, rounded to 0.001 px and a millionth of score."""
    rows = to_image(rows.astype(np.float64), letterbox, record.width, record.height)
    xywh_px = np.concatenate((rows[:, :2], rows[:, 2:4] - rows[:, :2]), 1).round(3).tolist()
    scores, classes = rows[:, 4].round(6).tolist(), rows[:, 5].astype(int).tolist()
    return [
        {"image_id": record.id, "category_id": category_ids[k], "bbox": box, "score": value}
        for box, value, k in zip(xywh_px, scores, classes, strict=True)
    ]
