"""AP over resamples of the scored images, by counting: matches are computed once and reused.

Shapes: I images, T IoU thresholds, R recall points, D detections of one class, S resamples.
"""

import numpy as np

from yolo_core.evaluate.coco_score import ClassMatches, CocoScore

_CHUNK = 2_000_000  # numbers of one working array of `ap_for_image_counts`


def ap_for_image_counts(result: CocoScore, counts: np.ndarray) -> np.ndarray:
    """AP over resampled multisets of the scored images.

    counts: (S, I) or (I,) whole numbers: how many times each image of `result.image_ids` is in the resample.
    Returns (S,) or a scalar array: AP as pycocotools would compute it for that multiset; NaN without ground truth.
    """
    many = np.atleast_2d(np.asarray(counts, np.int64))
    if many.shape[1] != len(result.image_ids):
        raise ValueError(f"counts are for {many.shape[1]} images, the score has {len(result.image_ids)}")
    total, present = np.zeros(len(many)), np.zeros(len(many))
    for matches in result.matches:
        truths = many @ matches.truths  # (S,)
        total += np.where(truths > 0, _class_ap(matches, many, truths, result.recall_points), 0)
        present += truths > 0
    with np.errstate(invalid="ignore"):
        ap = total / present
    return ap if np.ndim(counts) == 2 else ap[0]


def _class_ap(matches: ClassMatches, counts: np.ndarray, truths: np.ndarray, recall_points: np.ndarray) -> np.ndarray:
    """AP of one class for each resample: (S,)."""
    ap = np.zeros(len(counts))
    if not len(matches.image):
        return ap
    step = max(1, _CHUNK // max(len(matches.image), truths.max(initial=0)))
    for start in range(0, len(counts), step):
        part = slice(start, start + step)
        weights = counts[part][:, matches.image]  # (s, D)
        reached = _points_reached(truths[part], recall_points)
        detected = weights.cumsum(1)
        rows = zip(matches.right, matches.ignored, strict=True)
        ap[part] = np.mean([_curve_sum(weights, detected, *row, reached) for row in rows], 0) / len(recall_points)
    return ap


def _curve_sum(
    weights: np.ndarray, detected: np.ndarray, right: np.ndarray, ignored: np.ndarray, reached: np.ndarray
) -> np.ndarray:
    """Interpolated precision of one class at one IoU threshold, summed over the recall points: (s,).

    Only correct detections set points of the interpolated curve, so only their columns are computed.
    weights, detected: (s, D) multiplicity of each detection and its running sum; right, ignored: (D,) bool;
    reached: (s, G + 1) number of recall points that 0 to G right detections reach.
    """
    at = np.flatnonzero(right & ~ignored)
    found = weights[:, at].cumsum(1)  # (s, P) right detections up to each of the P points
    seen = detected[:, at]
    if ignored.any():
        skipped = np.flatnonzero(ignored)
        before = np.pad(weights[:, skipped].cumsum(1), ((0, 0), (1, 0)))
        seen = seen - before[:, np.searchsorted(skipped, at)]
    precision = found / (seen + np.spacing(1))  # the same guard against 0/0 as pycocotools
    envelope = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
    points = np.diff(np.take_along_axis(reached, found, 1), axis=1, prepend=0)  # first reached there; beyond, 0
    return (envelope * points).sum(1)


def _points_reached(truths: np.ndarray, recall_points: np.ndarray) -> np.ndarray:
    """The number of recall points that 0 to G right detections reach: (s, G + 1). G: largest of `truths`, or 1."""
    needed = _truths_needed(truths, recall_points)  # (s, R)
    width = truths.max(initial=1) + 1
    rows = np.arange(len(truths))[:, None] * width
    first = np.bincount((needed + rows).ravel(), minlength=rows.size * width).reshape(-1, width)
    return first.cumsum(1)


def _truths_needed(truths: np.ndarray, recall_points: np.ndarray) -> np.ndarray:
    """The least n with n / truths >= recall point, in the floating-point arithmetic of pycocotools: (s, R)."""
    some = np.maximum(truths, 1)[:, None]
    n = np.ceil(some * recall_points).astype(np.int64)
    n = np.where((n - 1) / some >= recall_points, n - 1, n)
    return np.where(n / some < recall_points, n + 1, n)
