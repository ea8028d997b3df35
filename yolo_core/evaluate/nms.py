"""Non-maximum suppression: class-aware, exact, without a time limit.

A candidate is a (row, class) pair whose score, objectness x class probability, is over `conf`. The plain definition:
walk the candidates from the highest score down, ties by row then class; keep one unless a kept candidate of its class
overlaps it by more than `iou`; stop at `max_detections`. `nms_loops.py` does just that, compiled.

Shapes: B images, N rows, K classes, C candidates of one image.
"""

import numpy as np
import torch
from torch import Tensor

from yolo_core.evaluate.suppression import Suppression

# Candidates tried first: usually `max_detections` are found among them, and the rest need not be sorted.
FIRST = 8192


@torch.no_grad()
def nms(predictions: Tensor, suppression: Suppression, multi_label: bool = True) -> list[Tensor]:
    """The detections of each image, highest score first.

    predictions: (B, N, 5+K), decoded: cx, cy, w, h px, objectness, class probabilities, all three in 0..1.
    multi_label: a row is a candidate once for every class over `conf`; otherwise for its best class alone.
    Returns B float32 CPU tensors (n, 6), n <= max_detections: x1, y1, x2, y2 px, score, class index.
    Rows with a number that is not finite never become candidates.
    """
    return [_one_image(image, suppression, multi_label) for image in predictions]


def _one_image(rows: Tensor, suppression: Suppression, multi_label: bool) -> Tensor:
    from yolo_core.evaluate.nms_loops import gather  # here, since its compiler is slow to import

    rows = rows[rows[:, 4] > suppression.conf].float().cpu()  # a class probability is at most 1: no candidate is lost
    candidates = gather(rows.numpy(), suppression.conf, multi_label)
    count = len(candidates[1])
    for best in (min(FIRST, count), count):
        order = by_score(candidates[1], best)
        boxes, scores, classes = (column[order] for column in candidates)
        kept = suppress(boxes, classes, suppression.iou, suppression.max_detections)
        if best == count or len(kept) == suppression.max_detections:
            break
    return torch.from_numpy(np.column_stack((boxes[kept], scores[kept], classes[kept].astype(np.float32))))


def by_score(scores: np.ndarray, best: int) -> np.ndarray:
    """The indices of the `best` highest of (C,) positive float32 scores from the highest down, ties by index.

    The bits of positive floats sort as integers do, so one integer sort of (score, index) does it.
    """
    bits = np.ascontiguousarray(scores, np.float32).view(np.uint32).astype(np.uint64)
    keys = ((np.uint64(0xFFFFFFFF) - bits) << np.uint64(32)) | np.arange(len(scores), dtype=np.uint64)
    if best < len(keys):
        keys = np.partition(keys, best)[:best]
    return (np.sort(keys) & np.uint64(0xFFFFFFFF)).astype(np.int64)


def suppress(boxes_xyxy_px: np.ndarray, classes: np.ndarray, iou: float, max_detections: int) -> np.ndarray:
    """Indices (n,) of the kept ones among (C, 4) boxes that are sorted by score, in their order.

    classes: (C,) whole numbers from 0.
    """
    from yolo_core.evaluate.nms_loops import greedy

    boxes = np.ascontiguousarray(boxes_xyxy_px, np.float32)
    return greedy(boxes, classes.astype(np.int64), np.float32(iou), max_detections)
