"""What a model's weights come from, as digests: the data, the parameters, the code and the image.

A version carries them in the registry. Where they are the same now as they were then, another training brings nothing.
It also carries the fingerprint of the source that its data were prepared from: where that is the same, the data are,
and need not be prepared to know so.
"""

import functools
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from components.params import Params

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

IMAGE_VARIABLE = "SCALED_YOLOV4_IMAGE"  # of the container; on a machine of one's own there is none
ASKED_VARIABLE = "SCALED_YOLOV4_ASKED"  # JSON, model -> digest of its parameters before a fine-tuning changed them
SOURCE_VARIABLE = "SCALED_YOLOV4_SOURCE"  # fingerprint of the source, where it was resolved before `prepare`
LINEAGE_TAG = "scaled_yolov4.lineage"
SOURCE_TAG = "scaled_yolov4.source"

# The code behind the weights: what the stages anchors, evolve and train depend on in dvc.yaml; a test compares.
CODE = (
    "components/stages/anchors.py",
    "components/stages/evolve.py",
    "components/evolution",
    "components/stages/train.py",
    "components/training",
    "yolo_core/anchors.py",
    "yolo_core/boxes.py",
    "yolo_core/data",
    "yolo_core/evaluate",
    "yolo_core/evolution.py",
    "yolo_core/losses",
    "yolo_core/models",
    "yolo_core/train",
)
# The code behind the data: what `prepare` depends on there.
PREPARE_CODE = (
    "components/datasets/checks.py",
    "components/datasets/folder.py",
    "components/datasets/image_check.py",
    "components/datasets/image_index.py",
    "components/datasets/manifest.py",
    "components/stages/prepare.py",
    "components/datasets/raw.py",
    "components/datasets/sources",
    "yolo_core/data/digits.py",
)
# Of the parameters of training, those that decide how fast it goes and not what comes of it.
PACE = {"loader_workers", "cache", "cache_gib", "checkpoint_every", "keep_checkpoints", "stall_minutes"}
ROOT = Path(__file__).parents[2]

Lineage = dict[str, str]


def lineage(params: Params, model: str, data_sha256: str) -> Lineage:
    """Of a training of `model` now; data_sha256: of the content, from the manifest."""
    asked = json.loads(os.environ.get(ASKED_VARIABLE) or "{}")
    return {
        "data": data_sha256,
        "parameters": asked.get(model) or parameters_digest(params, model),
        "code": code_digest(CODE),
        "image": os.environ.get(IMAGE_VARIABLE, ""),
    }


def source_fingerprint(params: Params, found: str) -> str:
    """SHA-256 (hex) of what decides the prepared data: parameters, code, and the source as it was `found`."""
    place = params.prepare.model_dump(mode="json", exclude={"revision"})  # `found` is of what it stands for
    return hashlib.sha256(json.dumps([place, code_digest(PREPARE_CODE), found]).encode()).hexdigest()


def judged_alike(judged: Mapping[str, "ModelVersion | None"], now: Lineage, source: str = "") -> str:
    """Which version of the same lineage has been judged already, in words; training it again would change nothing.

    judged: by alias. Data whose content is not known yet ("") are the same where `source`, their fingerprint, is.
    """
    for alias, version in judged.items():
        if version is None:
            continue
        then = of_version(version)
        if not now["data"] and source == version.tags.get(SOURCE_TAG):
            then["data"] = ""
        if then == now:
            return f"version {version.version}, the {alias}, comes of the same {', '.join(now)}"
    return ""


def of_version(version: "ModelVersion") -> Lineage:
    """As it was recorded; empty for a version that was registered without."""
    return json.loads(version.tags.get(LINEAGE_TAG) or "{}")


def parameters_digest(params: Params, model: str) -> str:
    """SHA-256 (hex) of the parameters that decide the weights of one model; the data count by their content."""
    sections = {
        "seed": params.seed,
        "anchors": params.anchors.model_dump(mode="json"),
        "evolve": params.evolve.model_dump(mode="json"),
        "train": params.train.model_dump(mode="json", exclude={"per_model", *PACE}),
        "settings": [params.train_settings(name).model_dump(mode="json") for name in (model, params.evolve.model)],
    }
    return hashlib.sha256(json.dumps(sections, sort_keys=True).encode()).hexdigest()


@functools.cache
def code_digest(places: tuple[str, ...]) -> str:
    """SHA-256 (hex) of the files below `places` with their names."""
    files = sorted(path for place in places for path in _python_files(ROOT / place))
    lines = (f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(ROOT)}\n" for path in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _python_files(place: Path) -> list[Path]:
    return list(place.rglob("*.py")) if place.is_dir() else [place]
