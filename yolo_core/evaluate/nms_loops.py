"""The compiled loops of `nms.py`, which documents what they compute.

Shapes: M rows, K classes, C candidates of one image.
"""

import numpy as np

from yolo_core.compiled import compiled


@compiled
def gather(rows, conf, multi_label):
    """The candidates of (M, 5+K) float32 rows, by row then class: xyxy_px (C, 4), scores (C,), classes (C,)."""
    limit, two = np.float32(conf), np.float32(2)
    most = len(rows) * (rows.shape[1] - 5 if multi_label else 1)
    boxes = np.empty((most, 4), np.float32)
    scores = np.empty(most, np.float32)
    classes = np.empty(most, np.int64)
    found = 0
    for row in rows:
        box = (row[0] - row[2] / two, row[1] - row[3] / two, row[0] + row[2] / two, row[1] + row[3] / two)
        if not (_finite(row) and _finite(box)):
            continue
        first = found
        for k in range(len(row) - 5):
            score = row[4] * row[5 + k]
            if not score > limit:
                continue
            if multi_label or found == first:
                found += 1
            elif score <= scores[first]:
                continue
            scores[found - 1], classes[found - 1] = score, k
        boxes[first:found] = np.array(box)
    return boxes[:found], scores[:found], classes[:found]


@compiled
def greedy(boxes, classes, iou, most):
    """The kept of (C, 4) xyxy_px float32 boxes that are sorted by score: indices (n,), n <= most.

    A box is compared with the kept ones of its class alone; those are chained, the newest first.
    """
    newest = np.full(classes.max() + 1 if len(classes) else 0, -1)  # of each class, as an index into `kept`
    before = np.empty(min(most, len(boxes)), np.int64)  # the index of the next older one, -1 for none
    kept = np.empty(len(before), np.int64)
    found = 0
    for one in range(len(boxes)):
        if found == len(kept):
            break
        index = newest[classes[one]]
        while index >= 0 and not _over(boxes, one, kept[index], iou):
            index = before[index]
        if index < 0:
            before[found], kept[found] = newest[classes[one]], one
            newest[classes[one]] = found
            found += 1
    return kept[:found]


@compiled
def _over(boxes, i, j, limit):
    """Whether the IoU of two boxes is over `limit`; those that share nothing have 0, whatever their areas."""
    width = min(boxes[i, 2], boxes[j, 2]) - max(boxes[i, 0], boxes[j, 0])
    height = min(boxes[i, 3], boxes[j, 3]) - max(boxes[i, 1], boxes[j, 1])
    if not (width > 0 and height > 0):
        return False
    shared = width * height
    return shared / (_area(boxes, i) + _area(boxes, j) - shared) > limit


@compiled
def _area(boxes, i):
    return (boxes[i, 2] - boxes[i, 0]) * (boxes[i, 3] - boxes[i, 1])


@compiled
def _finite(numbers):
    count = 0
    for number in numbers:
        count += np.isfinite(number)
    return count == len(numbers)
