"""What a model's weights come from, as digests: the data, the parameters, the code and the image.

A version carries them in the registry. Where they are the same now as they were then, another training brings nothing.
It also carries the fingerprint of the source that its data were prepared from: where that is the same, the data are,
and need not be prepared to know so.
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

IMAGE_VARIABLE = "SCALED_YOLOV4_IMAGE"  # of the container; on a machine of one's own there is none
ASKED_VARIABLE = "SCALED_YOLOV4_ASKED"  # JSON, model -> digest of its parameters before a fine-tuning changed them
SOURCE_VARIABLE = "SCALED_YOLOV4_SOURCE"  # fingerprint of the source, where it was resolved before `prepare`
LINEAGE_TAG = "scaled_yolov4.lineage"
SOURCE_TAG = "scaled_yolov4.source"

# The stages that weights pass through, and the one that data pass through; a test holds them to the stage table.
BEHIND_WEIGHTS = ("anchors", "evolve", "train")
BEHIND_DATA = ("prepare",)
# Parameters of training that decide how fast it runs and not what comes out.
PACE = {"loader_workers", "cache", "cache_gib", "checkpoint_every", "keep_checkpoints", "stall_minutes"}

Lineage = dict[str, str]


def lineage(params: Params, model: str, data_sha256: str) -> Lineage:
    """Of a training of `model` now; data_sha256: of the content, from the manifest."""
    asked = json.loads(os.environ.get(ASKED_VARIABLE) or "{}")
    return {
        "data": data_sha256,
        "parameters": asked.get(model) or parameters_digest(params, model),
        "code": code_digest(*BEHIND_WEIGHTS),
        "image": os.environ.get(IMAGE_VARIABLE, ""),
    }


def source_fingerprint(params: Params, found: str) -> str:
    """SHA-256 (hex) of what decides the prepared data: parameters, code, and the source as it was `found`."""
    place = params.prepare.model_dump(mode="json", exclude={"revision"})  # `found` is of what it stands for
    return hashlib.sha256(json.dumps([place, code_digest(*BEHIND_DATA), found]).encode()).hexdigest()


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
    """SHA-256 (hex) of what decides the weights of one model besides data, code and image.

    Of the training that is its whole identity: every value that the recipe and the defaults supply is among them.
    """
    sections = {
        "seed": params.seed,
        "anchors": params.anchors.model_dump(mode="json"),
        "evolve": params.evolve.model_dump(mode="json"),
        "train": params.train.model_dump(mode="json", exclude={"per_model", *PACE}),
        "trainings": [_training(params, name) for name in (model, params.evolve.model)],
    }
    return hashlib.sha256(json.dumps(sections, sort_keys=True).encode()).hexdigest()


def _training(params: Params, model: str) -> dict[str, object]:
    """A training's identity before anything ran. The device is as asked for: this machine may have another."""
    from components.training.configuration import resolved  # brings torch

    config = dataclasses.replace(resolved(params, model), device="cpu")
    asked = {"device": params.train.device, "weights": params.train_settings(model).weights}
    return {**config.identity(), **asked}


@functools.cache
def code_digest(*stages: str) -> str:
    """SHA-256 (hex) of what the code behind these stages says; comments, docstrings and layout do not count."""
    return digest(closure(*(f"components.stages.{stage}" for stage in stages)))
