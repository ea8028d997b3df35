"""COCO scoring: the 12 figures, per-class AP and precision-recall curves, judged by pycocotools.

A `CocoScore` also keeps, per class, which detections of which image were right, so that AP over a resampled set of
images follows by counting alone, without matching again: `ap_for_image_counts` (used by the paired bootstrap).

Shapes: I images, K classes, T = 10 IoU thresholds (.50 to .95), R = 101 recall points, D detections of one class,
S resamples.
"""

import contextlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

FIGURES = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large",
           "AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large")  # fmt: skip
_CHUNK = 2_000_000  # numbers of one working array of `ap_for_image_counts`


@dataclass(frozen=True)
class ClassMatches:
    """The detections of one class over all images, by falling score (at most 100 per image)."""

    image: np.ndarray  # (D,) index into `CocoScore.image_ids`
    right: np.ndarray  # (T, D) bool: matched to a truth
    ignored: np.ndarray  # (T, D) bool: matched to a crowd, counts for nothing
    truths: np.ndarray  # (I,) number of truths per image


@dataclass(frozen=True)
class CocoScore:
    figures: dict[str, float | None]  # the 12 names of `FIGURES`, 0..1; None where there is no truth
    per_class: dict[str, dict[str, float | None]]  # class name: AP, AP50
    precision: np.ndarray  # (T, R, K) interpolated precision, -1 for a class without truth
    recall_points: np.ndarray  # (R,)
    classes: list[str]
    image_ids: list[int]
    matches: list[ClassMatches]  # one per class


def score(
    annotation_path: Path | str, detections: Sequence[dict[str, Any]], image_ids: Iterable[int] | None = None
) -> CocoScore:
    """Score COCO result dicts (image_id, category_id, bbox xywh px, score) against an instances file.

    image_ids: only these images count (default: all of the file); detections on others are left out.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotation_path))
        chosen = sorted(truth.getImgIds() if image_ids is None else set(image_ids))
        judge = COCOeval(truth, _results(truth, detections, set(chosen)), "bbox")
        judge.params.imgIds = chosen
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    # precision: (T, R, K, area ranges, detection limits) -> all areas, 100 detections
    precision = judge.eval["precision"][:, :, :, 0, -1]
    classes = [category["name"] for category in truth.loadCats(judge.params.catIds)]
    return CocoScore(
        figures={name: _or_none(value) for name, value in zip(FIGURES, judge.stats, strict=True)},
        per_class={
            name: {"AP": _mean(precision[:, :, k]), "AP50": _mean(precision[0, :, k])} for k, name in enumerate(classes)
        },
        precision=precision,
        recall_points=np.asarray(judge.params.recThrs),
        classes=classes,
        image_ids=chosen,
        matches=_matches(judge),
    )


def ap_for_image_counts(result: CocoScore, counts: np.ndarray) -> np.ndarray:
    """AP over resampled multisets of the scored images.

    counts: (S, I) or (I,) whole numbers: how many times each image of `result.image_ids` is in the resample.
    Returns (S,) or a scalar array: what pycocotools would call AP for that multiset; NaN where it holds no truth.
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
    step = max(1, _CHUNK // len(matches.image))
    for start in range(0, len(counts), step):
        part = slice(start, start + step)
        weights = counts[part][:, matches.image]  # (s, D)
        needed = _truths_needed(truths[part], recall_points)
        detected = weights.cumsum(1)
        rows = zip(matches.right, matches.ignored, strict=True)
        ap[part] = np.mean([_curve_mean(weights, detected, *row, needed) for row in rows], 0)
    return ap


def _curve_mean(
    weights: np.ndarray, detected: np.ndarray, right: np.ndarray, ignored: np.ndarray, needed: np.ndarray
) -> np.ndarray:
    """Mean interpolated precision of one class at one IoU threshold: (s,).

    The interpolated curve is set by its points at right detections alone, so only those columns are worked on.
    weights, detected: (s, D) multiplicity of each detection and its running sum; right, ignored: (D,) bool;
    needed: (s, R) right detections that reach each recall point.
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
    envelope = np.pad(envelope, ((0, 0), (0, 1)))  # a recall that is never reached has precision 0
    # One search for all rows: each row is lifted above the one before it.
    lift = np.arange(len(weights))[:, None] * (max(found.max(initial=0), needed.max()) + 1)
    place = np.searchsorted((found + lift).ravel(), (needed + lift).ravel()).reshape(needed.shape)
    place = np.minimum(place - np.arange(len(weights))[:, None] * len(at), len(at))
    return np.take_along_axis(envelope, place, 1).mean(1)


def _truths_needed(truths: np.ndarray, recall_points: np.ndarray) -> np.ndarray:
    """The least n with n / truths >= recall point, in the floating-point arithmetic of pycocotools: (s, R)."""
    some = np.maximum(truths, 1)[:, None]
    n = np.ceil(some * recall_points).astype(np.int64)
    n = np.where((n - 1) / some >= recall_points, n - 1, n)
    return np.where(n / some < recall_points, n + 1, n)


def _matches(judge: COCOeval) -> list[ClassMatches]:
    """Take what pycocotools matched (its flat list is ordered by class, area range, image) apart by class."""
    images, areas = len(judge.params.imgIds), len(judge.params.areaRng)
    thresholds = len(judge.params.iouThrs)
    result = []
    for k in range(len(judge.params.catIds)):
        all_areas = judge.evalImgs[k * areas * images : k * areas * images + images]
        found = [(i, entry) for i, entry in enumerate(all_areas) if entry is not None]
        truths = np.zeros(images, np.int64)
        truths[[i for i, _ in found]] = [np.count_nonzero(np.asarray(entry["gtIgnore"]) == 0) for _, entry in found]
        scores = np.concatenate([[], *(entry["dtScores"] for _, entry in found)])
        order = np.argsort(-scores, kind="mergesort")
        image = np.repeat([i for i, _ in found], [len(entry["dtScores"]) for _, entry in found]).astype(np.int64)
        none = np.zeros((thresholds, 0), bool)
        matched = np.concatenate([none, *(entry["dtMatches"] != 0 for _, entry in found)], 1)
        ignored = np.concatenate([none, *(entry["dtIgnore"].astype(bool) for _, entry in found)], 1)
        result.append(ClassMatches(image[order], matched[:, order], ignored[:, order], truths))
    return result


def _results(truth: COCO, detections: Sequence[dict[str, Any]], images: set[int]) -> COCO:
    """The detections as a COCO object; pycocotools itself refuses an empty list and writes into the dicts it gets."""
    mine = [dict(found) for found in detections if found["image_id"] in images]
    if mine:
        return truth.loadRes(mine)  # pyright: ignore[reportArgumentType] - it takes lists as well as file names
    empty = COCO()
    empty.dataset = {**truth.dataset, "annotations": []}
    empty.createIndex()
    return empty


def _or_none(value: float) -> float | None:
    return None if value < 0 or np.isnan(value) else float(value)


def _mean(precision: np.ndarray) -> float | None:
    return float(precision.mean()) if precision.size and precision.min() > -1 else None
