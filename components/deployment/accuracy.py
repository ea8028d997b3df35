"""The AP of a backend, and which timed rows may speak for the model that was evaluated."""

from collections.abc import Iterable

import torch

from components.deployment.backends import Backend
from components.deployment.timing import TimedRow
from components.params import EvaluateParams
from yolo_core import progress as progress_
from yolo_core.data.coco import DetectionDataset
from yolo_core.evaluate.coco_metrics import score
from yolo_core.evaluate.predict import predict


def ap_of(
    backend: Backend,
    dataset: DetectionDataset,
    *,
    size: int,
    batch: int,
    evaluation: EvaluateParams,
    device: torch.device,
    progress: progress_.Progress,
) -> float | None:
    """AP (0..1) of a backend on the square canvases that it is timed on; None where there is no ground truth."""
    found = predict(
        backend.predictor,
        dataset,
        size=size,
        batch=batch,
        suppression=evaluation.suppression,
        device=device,
        rect=False,
        label=f"AP of {backend.name} {backend.precision}",
        progress=progress,
    )
    return score(dataset.annotation_path, found, judge=evaluation.judge).figures["AP"]


def fastest(rows: Iterable[TimedRow], reference: Backend, tolerance: float) -> TimedRow | None:
    """The fastest row at batch 1 whose AP was measured and is at most `tolerance` below that of the reference.

    reference: what `evaluate` measures. Such a row shows the speed of the AP that promotion judges; None without one.
    """
    single = [row for row in rows if row["batch"] == 1]
    judged = next(
        row["ap"] for row in single if (row["backend"], row["precision"]) == (reference.name, reference.precision)
    )
    if judged is None:
        return None
    as_good = (row for row in single if row["ap"] is not None and row["ap"] >= judged - tolerance)
    return min(as_good, key=lambda row: row["total_ms"]["p50"])
