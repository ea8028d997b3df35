"""One trial: a training with given hyperparameters. This is what runs on a worker."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NotRequired, TypedDict

import cv2
import numpy as np
import torch

from components.datasets.prepared import load_prepared
from yolo_core.atomic import write_json
from yolo_core.data.cache import CacheSettings
from yolo_core.data.coco import DetectionDataset
from yolo_core.errors import TryAgain
from yolo_core.hyperparameters import Hyperparameters
from yolo_core.train import EpochRow, TrainConfig, fit
from yolo_core.train.validation import fitness

Splits = tuple[DetectionDataset, DetectionDataset]  # training and validation

# A training that sees at least this many images is checkpointed: it takes a minute or more on any device, so that the
# second or so per checkpoint pays off.
LONG_IMAGES = 20_000
RUNGS = "rungs.json"


@dataclass(frozen=True)
class TrialPlan:
    """Settings that all trials share."""

    config: TrainConfig
    """The training of the starting point."""
    data: Path
    images: CacheSettings
    """How decoded images are cached."""
    train_images: int | None
    """Number of training images, drawn by the seed; None for all."""
    val_images: int | None
    """The same for validation images."""
    threads: int
    """PyTorch threads per trial."""
    work: Path
    """Folder for the checkpoints of long trials."""
    rungs: tuple[int, ...] = ()
    """Epochs at which successive halving stops the weaker trials."""
    keep: float = 1.0
    """Share of the trials that continues at each rung."""


class TrialResult(TypedDict):
    """How a trial ended; it has figures if `ended` is true. Ray Tune gets it as it is."""

    ended: bool
    """False if the deadline stopped it."""
    fitness: NotRequired[float]
    AP: NotRequired[float]
    AP50: NotRequired[float]
    seconds: NotRequired[float]
    reason: NotRequired[str | None]
    """Why it failed; None if it did not."""
    rungs: NotRequired[list[float]]
    """Fitness at each rung that it reached."""
    stopped_at: NotRequired[int]
    """Epoch of the rung where it was stopped."""


def failure(reason: str, seconds: float) -> TrialResult:
    """The result of a trial that failed after `seconds`."""
    return {"ended": True, "fitness": 0.0, "AP": 0.0, "AP50": 0.0, "seconds": round(seconds, 3), "reason": reason}


def load_splits(plan: TrialPlan) -> Splits:
    """The images of a plan; also sets the number of threads of this process."""
    cv2.setNumThreads(0)
    torch.set_num_threads(plan.threads)
    train_set, val_set = (load_prepared(plan.data, split, cache=plan.images) for split in ("train", "val"))
    seed = plan.config.seed
    return _part(train_set, plan.train_images, seed), _part(val_set, plan.val_images, seed)


def _part(split: DetectionDataset, images: int | None, seed: int) -> DetectionDataset:
    """`images` images of a split, the same for the same seed; the whole split if it has no more."""
    if images is None or images >= len(split):
        return split
    chosen = np.random.default_rng(seed).choice(len(split), images, replace=False)
    return split.subset(sorted(chosen.tolist()))


def run_trial(
    plan: TrialPlan,
    splits: Callable[[], Splits],
    hyp: dict[str, float],
    deadline: float,
    limits: Sequence[float] = (),
    name: str = "trial",
) -> TrialResult:
    """Train once with the hyperparameters `hyp`.

    deadline: Unix time. limits: the fitness needed at each rung to continue. name: of the checkpoint folder.
    """
    began = time.monotonic()
    try:
        train_set, val_set = splits()
        long = plan.config.phases[-1].epochs * len(train_set) >= LONG_IMAGES
        work = plan.work / name if long else None
        result = _train(plan.config, train_set, val_set, hyp, deadline, Rungs(plan.rungs, limits, work), work)
    except Exception as error:  # one bad set of values must not end the search
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        return failure(reason, time.monotonic() - began)
    if not result["ended"]:
        return result
    return {**result, "seconds": round(time.monotonic() - began, 3), "reason": None}


class Rungs:
    """One trial's rungs of successive halving, stored in `work`, if given, beside its checkpoints."""

    def __init__(self, epochs: Sequence[int], limits: Sequence[float], work: Path | None) -> None:
        self._limits = dict(zip(epochs, limits, strict=False))
        self._file = work / RUNGS if work else None
        self._reached: dict[str, float] = {}
        if self._file and self._file.exists():
            self._reached = json.loads(self._file.read_text(encoding="utf-8"))

    @property
    def reached(self) -> list[float]:
        """Fitness at each rung so far."""
        return list(self._reached.values())

    def end_at(self, row: EpochRow) -> bool:
        """Record an epoch's figures; whether they are below the limit of its rung, so that the trial ends there."""
        epoch = row["epoch"]
        if epoch not in self._limits:
            return False
        value = self._reached[str(epoch)] = _fitness(row)
        if self._file:
            write_json(self._file, self._reached)
        return value < self._limits[epoch]


def _fitness(row: EpochRow) -> float:
    return fitness(row["AP"], row["AP50"])


def _train(
    config: TrainConfig,
    train_set: DetectionDataset,
    val_set: DetectionDataset,
    hyp: dict[str, float],
    deadline: float,
    rungs: Rungs,
    work: Path | None,
) -> TrialResult:
    """The figures of a training; `ended` is false if the deadline stopped it."""
    phases = tuple(replace(phase, hyp=Hyperparameters(**hyp)) for phase in config.phases)
    try:
        trained = fit(
            replace(config, phases=phases),
            train_set,
            val_set,
            work=work,
            on_epoch=rungs.end_at,
            should_stop=lambda: time.time() >= deadline,
        )
    except TryAgain:  # with `work` it has written a checkpoint
        return {"ended": False}
    if trained.ended_early:
        row = trained.rows[-1]
        ap, ap50 = row["AP"] or 0.0, row["AP50"] or 0.0
        figures: TrialResult = {"ended": True, "fitness": _fitness(row), "AP": ap, "AP50": ap50}
        return {**figures, "rungs": rungs.reached, "stopped_at": row["epoch"]}
    if not all(torch.isfinite(tensor).all() for tensor in trained.model.state_dict().values()):
        raise ArithmeticError("the trained weights are not finite")
    best = trained.best
    figures = {"ended": True, "fitness": best["fitness"], "AP": best["AP"] or 0.0, "AP50": best["AP50"] or 0.0}
    return {**figures, "rungs": rungs.reached}
