"""COCO scoring: the 12 figures, per-class AP and precision-recall curves.

Two judges give the same numbers: hotcoco, fast, and pycocotools, the reference. `CocoScore.matches` tells which
detections were right; the paired bootstrap counts them.

Shapes: I images, K classes, T = 10 IoU thresholds (.50 to .95), R = 101 recall points, 4 area ranges (all, small,
medium, large), 3 limits of detections an image (1, 10, 100).
"""

import contextlib
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from yolo_core.evaluate.coco_score import ClassMatches, CocoScore
from yolo_core.evaluate.detections import Detections
from yolo_core.evaluate.ground_truth import GroundTruth, positions, read_ground_truth

if TYPE_CHECKING:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

FIGURES = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large",
           "AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large")  # fmt: skip
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_POINTS = np.linspace(0, 1, 101)

Judge = Literal["hotcoco", "pycocotools"]


def score(
    annotation_path: Path | str,
    detections: Detections,
    image_ids: Iterable[int] | None = None,
    judge: Judge = "hotcoco",
) -> CocoScore:
    """Score detections against an instances file.

    image_ids: only these images count (default: all of the file); detections on others are left out.
    """
    return _JUDGES[judge](annotation_path, detections, image_ids)


def _hotcoco(path: Path | str, detections: Detections, image_ids: Iterable[int] | None) -> CocoScore:
    truth = read_ground_truth(path, image_ids)
    precision, recall = _accumulated(truth, detections)
    return CocoScore(
        figures=dict(zip(FIGURES, map(_or_none, _summary(precision, recall)), strict=True)),
        per_class=_per_class(truth.classes, precision[..., 0, -1]),
        precision=precision[..., 0, -1],
        recall_points=RECALL_POINTS,
        classes=truth.classes,
        image_ids=truth.image_ids.tolist(),
        match=lambda: _match(truth, detections),
    )


def _match(truth: GroundTruth, detections: Detections) -> list[ClassMatches]:
    from yolo_core.evaluate.matching import match  # here, since its compiler is slow to import

    return match(truth, detections, IOU_THRESHOLDS)


def _accumulated(truth: GroundTruth, detections: Detections) -> tuple[np.ndarray, np.ndarray]:
    """Precision (T, R, K, 4, 3) and recall (T, K, 4, 3) of hotcoco, which takes columns and indices instead of ids."""
    import hotcoco

    image, on_image = positions(detections.image_id, truth.image_ids)
    category, of_class = positions(detections.category_id, truth.category_ids)
    rows = np.column_stack((image, detections.xywh_px, detections.score, category))[on_image & of_class]
    expected = hotcoco.COCO.from_arrays(
        [{"id": i, "width": 0, "height": 0, "file_name": ""} for i in range(len(truth.image_ids))],
        [{"id": k, "name": name} for k, name in enumerate(truth.classes)],
        truth.image,
        truth.category,
        truth.xywh_px,
        area=truth.area,
        iscrowd=truth.crowd,
    )
    judge = hotcoco.COCOeval(expected, expected.load_res(rows), "bbox")
    judge.evaluate()
    judge.accumulate()
    result = judge.eval
    assert result is not None
    return result["precision"], result["recall"]


def _summary(precision: np.ndarray, recall: np.ndarray) -> list[float]:
    """The 12 figures, averaged as pycocotools does; -1 where there is nothing to average."""

    def mean(values: np.ndarray) -> float:
        known = values[values > -1]
        return known.mean() if len(known) else -1

    every, areas = precision[..., 0, -1], range(1, precision.shape[3])
    return [
        *(mean(values) for values in (every, every[0], every[5])),  # thresholds all, .50, .75
        *(mean(precision[..., area, -1]) for area in areas),
        *(mean(recall[..., 0, limit]) for limit in range(recall.shape[-1])),
        *(mean(recall[..., area, -1]) for area in areas),
    ]


def _pycocotools(path: Path | str, detections: Detections, image_ids: Iterable[int] | None) -> CocoScore:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        chosen = sorted(truth.getImgIds() if image_ids is None else set(image_ids))
        mine = detections.where(np.isin(detections.image_id, chosen)).records()
        judge = COCOeval(truth, truth.loadRes(mine) if mine else _nothing(truth), "bbox")  # pyright: ignore[reportArgumentType]
        judge.params.imgIds = chosen
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    precision = judge.eval["precision"][..., 0, -1]
    classes = [category["name"] for category in truth.loadCats(judge.params.catIds)]
    return CocoScore(
        figures=dict(zip(FIGURES, map(_or_none, judge.stats), strict=True)),
        per_class=_per_class(classes, precision),
        precision=precision,
        recall_points=np.asarray(judge.params.recThrs),
        classes=classes,
        image_ids=chosen,
        match=lambda: _matched_by(judge),
    )


def _nothing(truth: "COCO") -> "COCO":
    """No detections; pycocotools cannot load an empty list."""
    empty = type(truth)()
    empty.dataset = {**truth.dataset, "annotations": []}
    empty.createIndex()
    return empty


def _matched_by(judge: "COCOeval") -> list[ClassMatches]:
    """Split the matches of pycocotools, a flat list by class, area range and image, by class."""
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


def _per_class(classes: Sequence[str], precision: np.ndarray) -> dict[str, dict[str, float | None]]:
    """AP and AP50 of each class from (T, R, K) precision."""
    return {
        name: {"AP": _mean(precision[:, :, k]), "AP50": _mean(precision[0, :, k])} for k, name in enumerate(classes)
    }


def _or_none(value: float) -> float | None:
    return None if value < 0 or np.isnan(value) else float(value)


def _mean(precision: np.ndarray) -> float | None:
    return float(precision.mean()) if precision.size and precision.min() > -1 else None


_JUDGES = {"hotcoco": _hotcoco, "pycocotools": _pycocotools}
