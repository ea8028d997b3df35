"""A detector scored on a labelled dataset, in whatever runtime it is opened in."""

from pathlib import Path

from yolo_core import progress as progress_
from yolo_core.data.coco import load_split
from yolo_core.errors import UserError
from yolo_core.evaluate.coco_metrics import score
from yolo_core.evaluate.predict import predict
from yolo_core.evaluate.suppression import Suppression
from yolo_core.inference.runtimes import Runtime


def evaluate(
    runtime: Runtime,
    data: Path,
    split: str,
    *,
    rect: bool,
    batch: int,
    suppression: Suppression,
    progress: progress_.Progress = progress_.silent,
) -> dict[str, float | None]:
    """The 12 COCO figures (0 to 1; None where there is no ground truth) on a split of a prepared dataset folder.

    Raises UserError for a folder that is none, or one of other classes.
    """
    dataset = load_split(data, split)
    if tuple(dataset.classes) != runtime.classes:
        known = ", ".join(runtime.classes)
        raise UserError(f"{dataset.annotation_path}: has other classes than the detector ({known})")
    found = predict(
        runtime.predictor,
        dataset,
        size=runtime.size,
        batch=batch,
        suppression=suppression,
        device=runtime.device,
        rect=rect,
        stride=runtime.stride,
        progress=progress,
    )
    return score(dataset.annotation_path, found).figures
