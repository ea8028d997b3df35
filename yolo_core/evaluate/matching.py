"""Which detections are right: COCO's greedy matching of detections to ground truths, per class and image.

Shapes: I images, K classes, T IoU thresholds, N detections and G ground truths of all classes; a group is one class
in one image.
"""

import numpy as np

from yolo_core.compiled import compiled
from yolo_core.evaluate.coco_score import ClassMatches
from yolo_core.evaluate.detections import Detections
from yolo_core.evaluate.ground_truth import GroundTruth, positions

PER_GROUP = 100  # best-scoring detections of a class in an image that count
LARGEST_AREA = 1e5**2  # px2; boxes beyond it are ignored, as in the area range that COCO calls "all"


def match(truth: GroundTruth, detections: Detections, iou_thresholds: np.ndarray) -> list[ClassMatches]:
    """The matches of each class. Detections on other images and of other classes are left out."""
    images, classes = len(truth.image_ids), len(truth.category_ids)
    group, boxes, scores = _best(truth, detections)
    true_group = truth.category * images + truth.image
    ignored = truth.crowd | _oversized(truth.area)
    order = np.lexsort((ignored, true_group))  # ignored ones are matched last
    true_group, ignored, crowd = true_group[order], ignored[order], truth.crowd[order]
    groups, starts = np.unique(group, return_index=True)
    right, skipped = _match(
        boxes,
        _oversized(boxes[:, 2] * boxes[:, 3]),
        np.append(starts, len(group)),
        truth.xywh_px[order],
        crowd,
        ignored,
        np.searchsorted(true_group, groups, "left"),
        np.searchsorted(true_group, groups, "right"),
        iou_thresholds,
    )
    truths = np.bincount(true_group[~ignored], minlength=classes * images).reshape(classes, images)
    ranked = np.lexsort((-scores, group // max(images, 1)))
    ends = np.searchsorted(group, np.arange(classes + 1) * images)
    parts = [ranked[ends[k] : ends[k + 1]] for k in range(classes)]
    return [ClassMatches(group[p] % images, right[:, p], skipped[:, p], truths[k]) for k, p in enumerate(parts)]


def _best(truth: GroundTruth, detections: Detections) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Group (N,), xywh_px (N, 4) and score (N,) of the detections that count, by group and falling score."""
    image, on_image = positions(detections.image_id, truth.image_ids)
    category, of_class = positions(detections.category_id, truth.category_ids)
    group = category * len(truth.image_ids) + image
    counts = np.flatnonzero(on_image & of_class)
    order = counts[np.lexsort((-detections.score[counts], group[counts]))]
    group = group[order]
    rank = np.arange(len(group)) - np.searchsorted(group, group)
    order = order[rank < PER_GROUP]
    return group[rank < PER_GROUP], detections.xywh_px[order], detections.score[order]


def _oversized(areas: np.ndarray) -> np.ndarray:
    return (areas < 0) | (areas > LARGEST_AREA)


@compiled
def _match(boxes, oversized, starts, true_boxes, crowd, ignored, true_starts, true_stops, thresholds):
    """Whether each detection is matched, and whether it counts for nothing, at each threshold: both (T, N) bool.

    starts: (groups + 1,) where each group's detections begin; true_starts, true_stops: where its ground truths are.
    """
    right = np.zeros((len(thresholds), len(boxes)), np.bool_)
    skipped = np.zeros((len(thresholds), len(boxes)), np.bool_)
    for group in range(len(true_starts)):
        first, last = starts[group], starts[group + 1]
        true_first, true_last = true_starts[group], true_stops[group]
        overlaps = np.empty((last - first, true_last - true_first))
        for d in range(first, last):
            for g in range(true_first, true_last):
                overlaps[d - first, g - true_first] = _overlap(boxes[d], true_boxes[g], crowd[g])
        for t, threshold in enumerate(thresholds):
            free = np.ones(true_last - true_first, np.bool_)
            for d in range(first, last):
                found, best = -1, min(threshold, 1 - 1e-10)
                for g in range(true_first, true_last):
                    if not (free[g - true_first] or crowd[g]):
                        continue
                    if found >= 0 and ignored[g] and not ignored[found]:
                        break  # one that counts is preferred to any that does not
                    if overlaps[d - first, g - true_first] >= best:
                        found, best = g, overlaps[d - first, g - true_first]
                if found >= 0:
                    free[found - true_first] = False
                    right[t, d], skipped[t, d] = True, ignored[found]
                else:
                    skipped[t, d] = oversized[d]
    return right, skipped


@compiled
def _overlap(box, truth, crowd):
    """IoU of two xywh boxes; with a crowd the shared part of the detection, which may be one of many inside it."""
    width = min(box[0] + box[2], truth[0] + truth[2]) - max(box[0], truth[0])
    height = min(box[1] + box[3], truth[1] + truth[3]) - max(box[1], truth[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared, area = width * height, box[2] * box[3]
    return shared / (area if crowd else area + truth[2] * truth[3] - shared)
