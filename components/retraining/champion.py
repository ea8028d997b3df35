"""The champion that new data are compared with: what it was trained on, and how."""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from components.datasets import manifest
from components.datasets.difference import DatasetDiff, compare
from components.datasets.prepared import load_prepared
from components.files import MANIFEST, TRAINING, read_json
from components.lineage.record import Lineage, of_version
from components.params import Params, hyperparameters
from components.tracking.model_versions import CHAMPION, evidence_of, version_weights
from yolo_core.anchors import quality, training_boxes
from yolo_core.atomic import replaced
from yolo_core.models import get_spec
from yolo_core.models.weights import load_detector

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

REMEDY = f"move the alias `{CHAMPION}` to a version that has one, or train with `scaled-yolov4 retrain --force`"


@dataclass(frozen=True)
class Champion:
    """The champion's version, and the data and the training behind it."""

    version: int
    """Version number in the registry."""
    lineage: Lineage
    """Digests of what it was made of."""
    manifest: manifest.Manifest
    """The manifest of its dataset."""
    images_per_second: float
    """The speed of its training."""
    weights: Path
    """The champion's detector file."""


@dataclass(frozen=True)
class Comparison:
    """What differs between the champion and a training as it would be now."""

    diff: DatasetDiff
    """Differences of the data."""
    recall: float
    """Best possible recall of the champion's anchors on the training boxes as they are now (0..1)."""
    others: tuple[str, ...]
    """What differs besides the data: parameters, code, image."""


def load(client: "MlflowClient", version: "ModelVersion", folder: Path) -> Champion:
    """The champion with what was stored at its registration; its weights go to `folder`."""
    with tempfile.TemporaryDirectory() as temporary:
        evidence = evidence_of(client, version, Path(temporary), REMEDY)
        dataset, training = manifest.read(evidence / MANIFEST), read_json(evidence / TRAINING)
    return Champion(
        version=int(version.version),
        lineage=of_version(version),
        manifest=dataset,
        images_per_second=training["images_per_second"],
        weights=version_weights(version, folder / f"champion-{version.version}.safetensors"),
    )


def compared(
    champion: Champion, params: Params, model: str, data: Path, after: manifest.Manifest, now: Lineage
) -> Comparison:
    """The champion compared with the dataset in `data`, its manifest `after`, and the lineage of a training now."""
    before = champion.lineage
    others = tuple(part for part in now if part != "data" and before.get(part, now[part]) != now[part])
    return Comparison(compare(champion.manifest, after), _recall(champion, params, model, data), others)


def copied_weights(champion: Champion, folder: Path) -> Path:
    """A copy of the champion's detector file in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / champion.weights.name
    with replaced(path) as temporary:
        shutil.copyfile(champion.weights, temporary)
    return path


def _recall(champion: Champion, params: Params, model: str, data: Path) -> float:
    loaded = load_detector(champion.weights)
    boxes = training_boxes(load_prepared(data, "train"), loaded.size)
    anchor_t = hyperparameters(get_spec(model).hyp, params.train_settings(model)).anchor_t
    return quality(boxes, loaded.model.anchors.flatten(0, 1).numpy(), anchor_t).recall if len(boxes) else 1.0
