"""A trained detector together with the validation images it is measured on."""

from dataclasses import replace
from pathlib import Path

from components.datasets.prepared import load_prepared
from components.files import require
from yolo_core.data.coco import DetectionDataset
from yolo_core.device import pick_device
from yolo_core.errors import UserError, known_as
from yolo_core.models import pyramid
from yolo_core.models.weights import LoadedDetector, load_detector


def load_inputs(
    model: str, data: Path, weights: Path, *, device: str = "cpu", drop_levels: int = 0, size: int | None = None
) -> tuple[LoadedDetector, DetectionDataset]:
    """Load trained weights and the validation images.

    drop_levels: coarsest detection levels to drop; size: input side in px, None for the training size.
    Raises UserError when a file is missing, when the weights are of another model or other classes, or when the model
    does not allow this size or so few levels.
    """
    require(data, "prepare")
    loaded = load_detector(require(weights, "train"), device=pick_device(device))
    if loaded.model.spec.name != model:
        raise UserError(f"{weights}: holds {loaded.model.spec.name}, not {model}; give --model or --weights to match")
    with known_as(size="--size", count="--drop-levels"):
        wanted = loaded.size if size is None else loaded.model.spec.checked_size(size)
        loaded = replace(loaded, model=pyramid.drop_levels(loaded.model, drop_levels), size=wanted)
    dataset = load_prepared(data, "val")
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
