"""Builds the configuration of a training from the parameters and the results of earlier stages."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from components import yaml_text
from components.datasets.digest import dataset_digest
from components.datasets.prepared import class_names
from components.files import MANIFEST, require, sha256
from components.params import Params, hyperparameters
from components.storage.start_weights import Source, local_weights
from yolo_core.data.coco import CacheSettings
from yolo_core.errors import UserError, known_as
from yolo_core.models import get_spec
from yolo_core.models.spec import Anchors
from yolo_core.models.weights import read_classes
from yolo_core.progress import Progress, silent
from yolo_core.recipes import RECIPES
from yolo_core.train import Evaluation, Phase, TrainConfig

PUBLISHED = (".pt", ".weights")  # suffixes of the authors' formats


def configure(
    params: Params, model: str, data: Path, anchors: Path | None, hyp: Path | None, progress: Progress = silent
) -> TrainConfig:
    """The training's configuration. Hyperparameters: those of `train.recipe`, then `train.hyp`, then the evolved ones.

    anchors, hyp: files of the stages `anchors` and `evolve`; without them the published anchors, nothing evolved.
    Weights to start from are downloaded if `train.weights` is an address.
    """
    require(data / MANIFEST, "prepare")
    settings = params.train_settings(model)
    with known_as(size="train.size"):
        get_spec(model).checked_size(settings.size)
    config = dataclasses.replace(
        resolved(params, model, _evolved(hyp)),
        anchors=_anchors(anchors, model, settings.size),
        data=dataset_digest(data),
    )
    return _starting_from(config, settings.weights, data, progress) if settings.weights else config


def resolved(params: Params, model: str, evolved: Mapping[str, float] = {}) -> TrainConfig:
    """The configuration as far as parameters and recipe decide it, without the files of earlier stages.

    evolved: hyperparameters found by evolution.
    """
    settings, judged = params.train_settings(model), params.evaluate
    recipe = RECIPES[settings.recipe]
    first = hyperparameters(get_spec(model).hyp, settings).replace(**evolved)
    phases = [Phase(settings.epochs, first)]
    if second := settings.second_stage:
        phases.append(Phase(second.epochs, first.replace(**second.hyp)))
    return TrainConfig(
        model=model,
        phases=tuple(phases),
        size=settings.size,
        batch=settings.batch,
        nominal_batch=settings.nominal_batch or recipe.nominal_batch,
        seed=params.seed,
        width=settings.width,
        depth=settings.depth,
        checkpointing=settings.checkpointing,
        freeze=tuple(settings.freeze),
        multi_scale=settings.multi_scale,
        repeat_factor=settings.repeat_factor,
        class_weights=settings.class_weights,
        sync_bn=settings.sync_bn,
        ema_decay=params.train.ema_decay,
        ema_tau=params.train.ema_tau or recipe.ema_tau,
        eval_every=params.train.eval_every,
        patience=settings.patience,
        max_minutes=settings.max_minutes,
        evaluation=Evaluation(judged.batch, judged.suppression),
        judge=judged.judge,
        device=params.train.device,
        precision="auto" if params.train.amp else "fp32",
        compile=params.train.compile,
        loader_workers=params.train.loader_workers,
        checkpoint_every=params.train.checkpoint_every,
        keep_checkpoints=params.train.keep_checkpoints,
        stall_limit_s=params.train.stall_minutes * 60,
    )


def image_cache(params: Params, data: Path, work: Path) -> CacheSettings:
    """How decoded images are cached; on disk all trainings of one work folder share them."""
    limit = int(params.train.cache_gib * (1 << 30))
    return CacheSettings(params.train.cache, limit, work.absolute() / "cache", dataset_digest(data))


def refuse_published(named: str, weights: str, model: str) -> None:
    """Raise UserError, with the command that converts it, if `weights` is a file of the authors.

    named: how the error starts. model: the name of its model.
    """
    name = Path(Source.parse(weights).name)
    if name.suffix in PUBLISHED:
        raise UserError(
            f"{named}: convert it first: scaled-yolov4 import-weights --model {model} "
            f"--from {weights} --out {name.with_suffix('.safetensors')}"
        )


def _evolved(path: Path | None) -> dict[str, float]:
    """The hyperparameters that evolution found; none without a file of them."""
    if path is None:
        return {}
    try:
        values = yaml_text.parse(require(path, "evolve").read_text(encoding="utf-8"), str(path))["hyp"] or {}
        return {str(name): float(value) for name, value in values.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path}: not a file of hyperparameters; run `scaled-yolov4 evolve` again") from None


def _starting_from(config: TrainConfig, weights: str, data: Path, progress: Progress) -> TrainConfig:
    """The configuration of a training that starts from a detector."""
    refuse_published(f"train.weights = {weights}", weights, config.model)
    path = local_weights(weights, progress)
    try:
        digest = sha256(path)
    except OSError as error:
        raise UserError(f"train.weights = {weights}: cannot be read ({error.strerror or error})") from None
    return dataclasses.replace(
        config,
        start_from=str(path.absolute()),
        start_digest=digest,
        head_rows=read_classes(path) != class_names(data),
    )


def _anchors(path: Path | None, model: str, size: int) -> Anchors:
    """The anchors for this model, in pixels at the training size."""
    if path is None:  # rounded as in a file of them, so that the training is the same
        levels = [np.array(level).round(2).tolist() for level in get_spec(model).anchors_at(size)]
        return tuple(tuple((w, h) for w, h in level) for level in levels)
    try:
        # The stage makes them for the models of the parameters; this one may have been named on the command line.
        content = json.loads(require(path, f"anchors {_for_model(model, size)}").read_text(encoding="utf-8"))
        made_for = content["model"], content["size"]
        levels = tuple(tuple((float(w), float(h)) for w, h in level) for level in content["anchors"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{path}: not a file of anchors; run `scaled-yolov4 anchors` again") from None
    if made_for != (model, size):
        raise UserError(
            f"{path}: anchors of {made_for[0]} at {made_for[1]} px, training {model} at {size} px; "
            f"run `scaled-yolov4 anchors {_for_model(model, size)}`"
        )
    return levels


def _for_model(model: str, size: int) -> str:
    """Options that make a stage work for this model at this size, whatever the parameter file says."""
    return f"-S 'models=[{model}]' -S train.per_model.{model}.size={size}"
