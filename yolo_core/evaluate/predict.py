"""Run any predictor over a dataset: letterbox, decode, suppress, back to image pixels."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from yolo_core import progress as progress_
from yolo_core.boxes import xyxy_to_xywh
from yolo_core.data.coco import DetectionDataset, ImageRecord
from yolo_core.data.letterbox import Letterbox
from yolo_core.data.loader import EvalBatch, val_batches
from yolo_core.device import autocast as autocast_to
from yolo_core.errors import Stopped
from yolo_core.evaluate.detections import Detections
from yolo_core.evaluate.nms import nms
from yolo_core.evaluate.suppression import Suppression
from yolo_core.evaluate.tta import Predictor


@torch.no_grad()
def predict(
    predictor: Predictor,
    dataset: DetectionDataset,
    *,
    size: int,
    batch: int,
    suppression: Suppression,
    device: torch.device | str = "cpu",
    rect: bool = True,
    stride: int = 32,
    autocast: torch.dtype | None = None,
    share: tuple[int, int] = (0, 1),
    label: str = "evaluate",
    progress: progress_.Progress = progress_.silent,
    should_stop: Callable[[], bool] = lambda: False,
) -> Detections:
    """Detections on every image of `dataset`, in its order and by falling score within an image.

    size: longer side of the canvas, px; rect: canvases only as high and wide as their batch needs, multiples of
    `stride`, else all are size x size (for predictors of one fixed shape); autocast: precision of the forward pass.
    share: (i, n) takes part i of n, in whole batches of the same images as alone, so that the parts together are what
    one worker finds. should_stop: called before each batch.
    Raises Stopped when `should_stop` says so.
    """
    device = torch.device(device)
    batches = val_batches(dataset, size=size, batch=batch, stride=stride, rect=rect)
    batches = dataclasses.replace(batches, batches=batches.batches[share[0] :: share[1]])
    found: dict[int, Detections] = {}
    for part in progress(batches, label, total=len(batches)):
        if should_stop():
            raise Stopped
        images = to_device(part.images, device)
        with autocast_to(device, autocast):
            decoded = predictor(images)
        kept = nms(decoded, suppression)
        found.update(batch_results(part, kept, dataset))
    return Detections.joined(found[index] for index in sorted(found))


def to_device(images: Tensor, device: torch.device | str) -> Tensor:
    """(B, 3, H, W) uint8 -> float32 in 0..1 on `device`, channels last. Bytes are transferred, then converted."""
    moved = images.to(device, non_blocking=True)
    return moved.to(torch.float32, memory_format=torch.channels_last).div_(255)


def batch_results(part: EvalBatch, kept: Sequence[Tensor], dataset: DetectionDataset) -> dict[int, Detections]:
    """The kept detections of each canvas of a batch, by index in the dataset."""
    return {
        index: on_image(rows.numpy(), letterbox, dataset.images[index], dataset.category_ids)
        for index, letterbox, rows in zip(part.indices, part.letterboxes, kept, strict=True)
    }


def to_image(rows: np.ndarray, letterbox: Letterbox, width: int, height: int) -> np.ndarray:
    """Detections (n, 6) on a canvas -> on the image: xyxy_px clipped to it; boxes left without area are dropped."""
    rows = rows.copy()
    rows[:, :4] = letterbox.to_image(rows[:, :4])
    rows[:, [0, 2]] = rows[:, [0, 2]].clip(0, width)
    rows[:, [1, 3]] = rows[:, [1, 3]].clip(0, height)
    return rows[(rows[:, 2] > rows[:, 0]) & (rows[:, 3] > rows[:, 1])]


def on_image(rows: np.ndarray, letterbox: Letterbox, record: ImageRecord, category_ids: Sequence[int]) -> Detections:
    """Detections (n, 6) of one canvas on its image, rounded to 0.001 px and a millionth of score."""
    rows = to_image(rows.astype(np.float64), letterbox, record.width, record.height)
    return Detections(
        image_id=np.full(len(rows), record.id, np.int64),
        category_id=np.asarray(category_ids, np.int64)[rows[:, 5].astype(int)],
        xywh_px=xyxy_to_xywh(rows[:, :4]).round(3),
        score=rows[:, 4].round(6),
    )
