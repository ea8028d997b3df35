"""Confusion matrix of a detector: confused classes, missed objects, false positives.

Shapes: K classes, G ground truths and D detections of one image.
"""

import numpy as np
import torch

from yolo_core.boxes import box_iou, xywh_to_xyxy
from yolo_core.data.coco import DetectionDataset
from yolo_core.evaluate.detections import Detections


def confusion_matrix(
    dataset: DetectionDataset, detections: Detections, conf: float = 0.25, iou: float = 0.45
) -> np.ndarray:
    """Counts (K+1, K+1): row = true class, column = predicted class; the last of each is the background.

    Detections below `conf` are left out. In each image, ground truths and detections are paired one to one, regardless
    of class, by falling IoU down to `iou`. An unpaired ground truth counts in the last column, an unpaired detection
    in the last row.
    """
    background = len(dataset.classes)
    counts = np.zeros((background + 1, background + 1), np.int64)
    found = detections.where(detections.score >= conf).by_image()
    for record, labels in zip(dataset.images, dataset.labels, strict=True):
        here = found(record.id)
        true, predicted = labels[:, 0].astype(int), np.searchsorted(dataset.category_ids, here.category_id)
        overlaps = box_iou(torch.from_numpy(labels[:, 1:5]).double(), torch.from_numpy(xywh_to_xyxy(here.xywh_px)))
        pairs = pair_up(overlaps.numpy(), iou)
        np.add.at(counts, (true[pairs[:, 0]], predicted[pairs[:, 1]]), 1)
        counts[:, background] += np.bincount(np.delete(true, pairs[:, 0]), minlength=background + 1)
        counts[background] += np.bincount(np.delete(predicted, pairs[:, 1]), minlength=background + 1)
    return counts


def pair_up(overlaps: np.ndarray, least: float) -> np.ndarray:
    """Greedy one-to-one pairs (P, 2) of rows and columns of (G, D) overlaps, the largest first, all over `least`.

    Each round takes every pair that is the best of both its row and its column; the result is that of one at a time.
    """
    left = np.where(overlaps > least, overlaps, 0)
    pairs = [np.empty((0, 2), np.int64)]
    while left.any():
        column = left.argmax(1)
        row = np.flatnonzero((left.argmax(0)[column] == np.arange(len(left))) & (left.max(1) > 0))
        pairs.append(np.stack((row, column[row]), 1))
        left[row] = 0
        left[:, column[row]] = 0
    return np.concatenate(pairs)
