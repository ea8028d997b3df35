"""The lineage of a model's weights as digests: the data, the parameters, the code and the image.

A registered version carries them. If none has changed since, training again would change nothing.
It also carries the fingerprint of the source that its data were prepared from: if that is unchanged, so are the data,
which need not be prepared to find out.
"""

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from components.lineage.source_code import closure, digest
from components.params import Params

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

IMAGE_VARIABLE = "SCALED_YOLOV4_IMAGE"  # of the container; unset outside one
REQUESTED_VARIABLE = "SCALED_YOLOV4_REQUESTED"  # JSON, model -> digest of its parameters before fine-tuning
SOURCE_VARIABLE = "SCALED_YOLOV4_SOURCE"  # fingerprint of the source, if it was resolved before `prepare`
LINEAGE_TAG = "scaled_yolov4.lineage"
SOURCE_TAG = "scaled_yolov4.source"

# The stages behind the weights, and the one behind the data; a test checks them against the stage table.
BEHIND_WEIGHTS = ("anchors", "evolve", "train")
BEHIND_DATA = ("prepare",)

Lineage = dict[str, str]


def lineage(params: Params, model: str, data_sha256: str) -> Lineage:
    """The lineage of a training of `model` now. data_sha256: of the content, from the manifest."""
    requested = json.loads(os.environ.get(REQUESTED_VARIABLE) or "{}")
    return {
        "data": data_sha256,
        "parameters": requested.get(model) or parameters_digest(params, model),
        "code": code_digest(*BEHIND_WEIGHTS),
        "image": os.environ.get(IMAGE_VARIABLE, ""),
    }


def source_fingerprint(params: Params, found: str) -> str:
    """SHA-256 (hex) of what determines the prepared data: parameters, code, and the state of the source, `found`."""
    settings = params.prepare.model_dump(mode="json", exclude={"revision"})  # `found` is what it points to
    return hashlib.sha256(json.dumps([settings, code_digest(*BEHIND_DATA), found]).encode()).hexdigest()


def judged_alike(judged: Mapping[str, "ModelVersion | None"], now: Lineage, source: str = "") -> str:
    """Names a judged version of the same lineage, which makes training again pointless; empty if there is none.

    judged: by alias. If the content of the data is not known yet (""), their fingerprint `source` is compared.
    """
    for alias, version in judged.items():
        if version is None:
            continue
        then = of_version(version)
        if not now["data"] and source == version.tags.get(SOURCE_TAG):
            then["data"] = ""
        if then == now:
            return f"version {version.version}, the {alias}, has the same {', '.join(now)}"
    return ""


def of_version(version: "ModelVersion") -> Lineage:
    """The recorded lineage; empty for a version registered without one."""
    return json.loads(version.tags.get(LINEAGE_TAG) or "{}")


def parameters_digest(params: Params, model: str) -> str:
    """SHA-256 (hex) of what determines one model's weights besides data, code and image.

    It covers the training's whole identity, including every value from the recipe and the defaults.
    """
    sections = {
        "seed": params.seed,
        "anchors": params.anchors.model_dump(mode="json"),
        "evolve": params.evolve.model_dump(mode="json"),
        "trainings": [_training(params, name) for name in (model, params.evolve.model)],
    }
    return hashlib.sha256(json.dumps(sections, sort_keys=True).encode()).hexdigest()


def _training(params: Params, model: str) -> dict[str, object]:
    """A training's identity before anything ran. The device is the requested one: this machine may have another."""
    from components.training.configuration import resolved  # imports torch

    config = dataclasses.replace(resolved(params, model), device="cpu")
    requested = {"device": params.train.device, "weights": params.train_settings(model).weights}
    return {**config.identity(), **config.limits, **requested}


@functools.cache
def code_digest(*stages: str) -> str:
    """SHA-256 (hex) of the code behind these stages, ignoring comments, docstrings and layout."""
    return digest(closure(*(f"components.stages.{stage}" for stage in stages)))
