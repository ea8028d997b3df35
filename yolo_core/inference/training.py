"""A training in one call: the recipe of a model on a prepared dataset, without the pipeline around it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from yolo_core.anchors import FitSettings, choose
from yolo_core.data.coco import DetectionDataset, load_split
from yolo_core.device import pick_device
from yolo_core.models import get_spec
from yolo_core.models.weights import read_classes, save_detector
from yolo_core.recipes import RECIPES, RecipeName
from yolo_core.train import EpochReport, Phase, TrainConfig, fit


def train(
    model: str,
    data: Path,
    out: Path,
    *,
    epochs: int,
    size: int | None,
    batch: int,
    width: float,
    depth: float,
    start_from: str | Path | None,
    recipe: RecipeName,
    hyperparameters: Mapping[str, float],
    seed: int,
    device: str,
    on_epoch: Callable[[EpochReport], None] | None,
) -> None:
    """Train with one worker and write the detector of the best epoch to `out`; see `Detector.train`."""
    train_set, val_set = load_split(data, "train"), load_split(data, "val")
    spec = get_spec(model)
    side = spec.checked_size(size or spec.native_size)
    chosen = RECIPES[recipe]
    hyp = chosen.hyperparameters(spec.hyp).replace(**hyperparameters)
    anchors = choose(spec, train_set, side, anchor_t=hyp.anchor_t, settings=FitSettings(), seed=seed)
    config = TrainConfig(
        model=model,
        phases=(Phase(epochs, hyp),),
        size=side,
        batch=batch,
        nominal_batch=chosen.nominal_batch,
        ema_tau=chosen.ema_tau,
        width=width,
        depth=depth,
        seed=seed,
        anchors=tuple(tuple((float(w), float(h)) for w, h in level) for level in anchors.levels),
        data=_digest(train_set, val_set),
        device=str(pick_device(device)),
    )
    if start_from:
        config = _starting_from(config, Path(start_from), train_set.classes)
    result = fit(config, train_set, val_set, work=out.with_name(f"{out.stem}.work"), on_report=on_epoch)
    save_detector(out, result.model, classes=train_set.classes, size=side)


def _starting_from(config: TrainConfig, weights: Path, classes: list[str]) -> TrainConfig:
    return replace(
        config,
        start_from=str(weights),
        start_digest=hashlib.sha256(weights.read_bytes()).hexdigest(),
        head_rows=read_classes(weights) != classes,
    )


def _digest(*splits: DetectionDataset) -> str:
    """SHA-256 (hex) of annotations and sizes of image files, so that a checkpoint of other data is refused."""
    found = hashlib.sha256()
    for split in splits:
        found.update(split.annotation_path.read_bytes())
        found.update(repr([record.path.stat().st_size for record in split.images]).encode())
    return found.hexdigest()
