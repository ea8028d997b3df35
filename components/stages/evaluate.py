"""Evaluate a trained detector on the validation images: COCO figures, plain and with test-time augmentation."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from components.files import require
from components.params import Params
from components.reports import plots
from yolo_core import progress as progress_
from yolo_core.atomic import write_json
from yolo_core.data.coco import DetectionDataset, load_split
from yolo_core.device import pick_device
from yolo_core.errors import UserError
from yolo_core.evaluate.coco_metrics import score
from yolo_core.evaluate.coco_score import CocoScore
from yolo_core.evaluate.confusion import confusion_matrix
from yolo_core.evaluate.predict import predict
from yolo_core.evaluate.tta import TTA, Plain
from yolo_core.models import pyramid
from yolo_core.models.detector import Detector
from yolo_core.models.fuse import fuse
from yolo_core.models.weights import LoadedDetector, load_detector


def run(
    params: Params,
    *,
    model: str,
    data: Path,
    weights: Path,
    out: Path,
    drop_levels: int = 0,
    size: int | None = None,
    progress: progress_.Progress = progress_.silent,
) -> dict[str, Any]:
    """Write metrics.json, detections.json, detections_tta.json, confusion.json and pictures of them to `out`.

    The figures are measured on the folded model in float32, at `size`; see `load_inputs`.
    """
    loaded, dataset = load_inputs(model, data, weights, device=params.train.device, drop_levels=drop_levels, size=size)
    settings, device = params.evaluate, pick_device(params.train.device)
    fused = for_inference(loaded.model)
    predictors = {"plain": Plain(fused), "tta": TTA(fused, settings.tta.scales, settings.tta.flips)}
    found = {
        row: predict(
            predictor,
            dataset,
            size=loaded.size,
            batch=settings.batch,
            suppression=settings.suppression,
            stride=fused.input_stride,
            device=device,
            label=f"evaluate {row}",
            progress=progress,
        )
        for row, predictor in predictors.items()
    }
    scores = {
        row: score(dataset.annotation_path, detections, judge=settings.judge) for row, detections in found.items()
    }

    write_json(out / "metrics.json", metrics(loaded, len(dataset), scores))
    found["plain"].write(out / "detections.json")
    found["tta"].write(out / "detections_tta.json")
    plots.pr_curves(out / "pr_curve.png", scores["plain"], f"{model}: precision and recall at IoU .50")
    matrix = confusion_matrix(dataset, found["plain"])
    names = [*dataset.classes, "background"]
    write_json(out / "confusion.json", {"categories": names, "matrix": matrix.tolist()})
    plots.confusion(out / "confusion.png", matrix, dataset.classes, f"{model}: score from .25, IoU from .45")
    plots.sample_sheet(out / "samples.jpg", dataset, found["plain"])
    plain, tta = scores["plain"].figures, scores["tta"].figures
    return {"AP": plain["AP"], "AP50": plain["AP50"], "AP with TTA": tta["AP"], "AP50 with TTA": tta["AP50"]}


def for_inference(model: Detector) -> Detector:
    """A copy with folded normalisation, its weights laid out channels last as the images are."""
    return fuse(model).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - missing overload


def metrics(loaded: LoadedDetector, images: int, scores: dict[str, CocoScore]) -> dict[str, Any]:
    """The content of metrics.json; figures 0..1, None where there is no truth to measure by."""
    return {
        "model": loaded.model.spec.name,
        "size": loaded.size,
        "strides": list(loaded.model.strides),
        "images": images,
        **{row: result.figures for row, result in scores.items()},
        # A list: `dvc metrics show` would give each value of a mapping a column.
        "per_class": [{"class": name, **figures} for name, figures in scores["plain"].per_class.items()],
    }


def load_inputs(
    model: str, data: Path, weights: Path, *, device: str = "cpu", drop_levels: int = 0, size: int | None = None
) -> tuple[LoadedDetector, DetectionDataset]:
    """Trained weights and the validation images they are measured on.

    drop_levels: coarsest levels to go without; size: input pixels, None for those of the training.
    Raises UserError when a file is missing, the weights are of another model or other classes, or do not allow this.
    """
    require(data, "prepare")
    loaded = load_detector(require(weights, "train"), device=pick_device(device))
    if loaded.model.spec.name != model:
        raise UserError(f"{weights}: holds {loaded.model.spec.name}, not {model}; give --model or --weights to match")
    wanted = loaded.size if size is None else loaded.model.spec.checked_size(size, "--size")
    loaded = replace(loaded, model=pyramid.drop_levels(loaded.model, drop_levels), size=wanted)
    dataset = load_split(data, "val")
    if loaded.classes != dataset.classes:
        raise UserError(
            f"{weights}: was trained on {_few(loaded.classes)}, but {data} has {_few(dataset.classes)}; "
            "train on this data or give the data it was trained on"
        )
    if not len(dataset):
        raise UserError(f"{dataset.annotation_path}: has no images; prepare data with validation images")
    return loaded, dataset


def _few(names: list[str]) -> str:
    return f"{len(names)} classes ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
