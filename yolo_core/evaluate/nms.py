"""Non-maximum suppression: class-aware, exact, without a time limit.

A candidate is a (row, class) pair whose score, objectness x class probability, is over `conf`. The plain definition:
walk the candidates from the highest score down, ties by row then class; keep one unless a kept candidate of its class
overlaps it by more than `iou`; stop at `max_detections`. The code below gives exactly that answer. It walks in blocks:
a whole block is tested against what is kept so far, then the block is settled within itself.

Shapes: B images, N rows, K classes, C candidates of one image.
"""

import numpy as np
import torch
from torch import Tensor

from yolo_core.boxes import cxcywh_to_xyxy

BLOCK = 256  # candidates settled together


@torch.no_grad()
def nms(predictions: Tensor, conf: float, iou: float, max_detections: int, multi_label: bool = True) -> list[Tensor]:
    """The detections of each image, highest score first.

    predictions: (B, N, 5+K), decoded: cx, cy, w, h px, objectness, class probabilities, all three in 0..1.
    multi_label: a row is a candidate once for every class over `conf`; otherwise for its best class alone.
    Returns B float32 CPU tensors (n, 6), n <= max_detections: x1, y1, x2, y2 px, score, class index.
    Rows with a number that is not finite never become candidates.
    """
    return [_one_image(image, conf, iou, max_detections, multi_label) for image in predictions]


def _one_image(rows: Tensor, conf: float, iou: float, max_detections: int, multi_label: bool) -> Tensor:
    rows = rows[rows[:, 4] > conf].float().cpu()  # a class probability is at most 1: no candidate is lost
    scores = rows[:, 5:] * rows[:, 4:5]
    if multi_label:
        row, classes = (scores > conf).nonzero(as_tuple=True)
    else:
        best, classes = scores.max(1) if len(rows) else (scores.sum(1), scores.sum(1).long())
        row = (best > conf).nonzero(as_tuple=True)[0]
        classes = classes[row]
    boxes = cxcywh_to_xyxy(rows[:, :4])
    candidates = torch.cat((boxes[row], scores[row, classes, None], classes[:, None]), 1).numpy()
    candidates = candidates[np.isfinite(candidates).all(1)]
    candidates = candidates[by_score(candidates[:, 4])]
    return torch.from_numpy(candidates[suppress(candidates[:, :4], candidates[:, 5], iou, max_detections)])


def by_score(scores: np.ndarray) -> np.ndarray:
    """The order of (C,) positive float32 scores from the highest down, ties by index.

    The bits of positive floats sort as integers do, so one integer sort of (score, index) does it.
    """
    bits = np.ascontiguousarray(scores, np.float32).view(np.uint32).astype(np.uint64)
    keys = ((np.uint64(0xFFFFFFFF) - bits) << np.uint64(32)) | np.arange(len(scores), dtype=np.uint64)
    return (np.sort(keys) & np.uint64(0xFFFFFFFF)).astype(np.int64)


def suppress(boxes_xyxy_px: np.ndarray, classes: np.ndarray, iou: float, max_detections: int) -> np.ndarray:
    """Indices (n,) of the kept ones among (C, 4) boxes that are sorted by score, in their order."""
    columns = np.empty((6, len(boxes_xyxy_px)), np.float32)  # x1, y1, x2, y2, area, class
    columns[:4] = boxes_xyxy_px.T
    columns[4] = (columns[2] - columns[0]) * (columns[3] - columns[1])
    columns[5] = classes
    kept = np.empty(0, np.int64)
    for start in range(0, columns.shape[1], BLOCK):
        block = np.arange(start, min(start + BLOCK, columns.shape[1]))
        block = block[~_overlaps(columns[:, kept], columns[:, block], iou).any(0)]
        kept = np.concatenate((kept, block[_settle(_overlaps(columns[:, block], columns[:, block], iou))]))
        if len(kept) >= max_detections:
            break
    return kept[:max_detections]


def _overlaps(a: np.ndarray, b: np.ndarray, iou: float) -> np.ndarray:
    """Which boxes of `a` (6, n) and `b` (6, m) are of one class and overlap by more than `iou`: (n, m) bool."""
    width = np.minimum(a[2, :, None], b[2]) - np.maximum(a[0, :, None], b[0])
    height = np.minimum(a[3, :, None], b[3]) - np.maximum(a[1, :, None], b[1])
    shared = np.maximum(width, 0) * np.maximum(height, 0)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):  # two empty boxes: 0/0 overlaps nothing
        over = shared / (a[4, :, None] + b[4] - shared) > np.float32(iou)
    return over & (a[5, :, None] == b[5])


def _settle(overlaps: np.ndarray) -> np.ndarray:
    """Greedy keeping within one block: (n,) bool from (n, n) overlaps, earlier rows first.

    kept[j] = no kept i < j overlaps j. Each box depends on earlier ones alone, so repeating the rule from "all kept"
    fixes at least one more box a round and ends at the one solution; a few rounds do.
    """
    earlier = np.triu(overlaps, 1)
    kept: np.ndarray = np.ones(len(overlaps), bool)
    while True:
        again = np.logical_not(earlier[kept].any(0))
        if np.array_equal(again, kept):
            return kept
        kept = again
