"""A search as set up by the parameters: its starting point, digest, trials, budget and resources."""

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from components.datasets.prepared import load_prepared
from components.evolution.budget import Budget, Reserve, Resources
from components.evolution.ledger import Ledger, Record
from components.evolution.trial import TrialPlan
from components.params import EvolveParams, Params
from components.training.configuration import configure, image_cache
from yolo_core.errors import UserError
from yolo_core.hyperparameters import Hyperparameters
from yolo_core.progress import Progress, silent
from yolo_core.train import Phase, TrainConfig


@dataclass(frozen=True)
class Search:
    """A running or finished search."""

    params: Params
    config: TrainConfig
    """The training of the starting point."""
    ledger: Ledger
    data: Path
    work: Path
    """Absolute path."""
    began: float
    """Unix time at which it would have begun had it never been interrupted."""

    @property
    def settings(self) -> EvolveParams:
        return self.params.evolve

    @property
    def start(self) -> Hyperparameters:
        return self.config.phases[0].hyp

    @property
    def records(self) -> list[Record]:
        """The requested trials that have finished, by number."""
        return [self.ledger.records[trial] for trial in sorted(self.ledger.records) if trial < self.settings.trials]

    @property
    def is_finished(self) -> bool:
        return all(trial in self.ledger.records for trial in range(self.settings.trials))

    def check_names(self) -> None:
        """Raise UserError if a trial in the ledger has other hyperparameters than this version."""
        names = dataclasses.asdict(self.start).keys()
        for record in self.ledger.records.values():
            if record.hyp.keys() != names:
                raise UserError(f"{self.ledger.path}: trial {record.trial} has other hyperparameters; remove its line")

    def trial_plan(self) -> TrialPlan:
        """The settings that all trials share."""
        settings, halving = self.settings, self.settings.halving
        return replace(
            self._full_plan(self.config),
            train_images=settings.train_images,
            val_images=settings.val_images,
            rungs=tuple(halving.epochs) if halving else (),
            keep=halving.keep if halving else 1.0,
        )

    def check_plan(self) -> TrialPlan:
        """What the trainings that check the winner share: that of the trials, or that of a longer training."""
        epochs = self.settings.confirm.epochs
        if epochs == "trial":
            return self.trial_plan()
        epochs = epochs or self.params.train_settings(self.settings.model).epochs
        return self._full_plan(replace(self.config, phases=(Phase(epochs, self.start),), eval_every=epochs))

    def _full_plan(self, config: TrainConfig) -> TrialPlan:
        """A plan for trainings with `config` on all images, without halving."""
        return TrialPlan(
            config=config,
            data=self.data.resolve(),
            images=image_cache(self.params, self.data, self.work),
            train_images=None,
            val_images=None,
            threads=max(1, int(self.settings.cpus_per_trial)),
            work=self.ledger.path.parent.absolute(),
        )

    @property
    def budget(self) -> Budget:
        hours = self.settings.gpu_hours
        gpu_seconds = math.inf if hours is None else 3600 * hours
        return Budget(self.settings.trials, self.began + 60 * self.settings.minutes, gpu_seconds)

    @property
    def trial_budget(self) -> Budget:
        """Budget of the trials, without the part kept for confirming a winner."""
        return replace(self.budget, reserve=self._reserve)

    @cached_property
    def _reserve(self) -> Reserve:
        """Enough for all checks, but at most half of the budget."""
        settings, resources = self.settings, self.resources
        rounds = math.ceil(2 * settings.confirm.seeds / settings.concurrent)
        seconds = 60 * settings.minutes
        if settings.gpu_hours is not None:
            seconds = min(seconds, 3600 * settings.gpu_hours / (resources.gpus * resources.concurrent))
        return Reserve(rounds * self._trials_per_check(), seconds / 2)

    def _trials_per_check(self) -> float:
        """How many times as long as a trial a check takes, by the images that both see."""
        plan = self.check_plan()
        if plan.train_images is not None:
            return 1.0
        images = max(1, len(load_prepared(self.data, "train")))
        epochs = plan.config.phases[-1].epochs
        return epochs * images / (self.settings.epochs * min(images, self.settings.train_images))

    @property
    def resources(self) -> Resources:
        settings = self.settings
        return Resources(settings.concurrent, settings.cpus_per_trial, settings.gpus_per_trial)


def trial_config(params: Params, data: Path, anchors: Path, progress: Progress = silent) -> TrainConfig:
    """The training of the starting point: as the stage `train` would run it, but shorter.

    The other trials differ only in their hyperparameters.
    """
    settings = params.evolve
    full = configure(params, settings.model, data, anchors / f"{settings.model}.json", None, progress)
    return replace(
        full,
        phases=(Phase(settings.epochs, full.phases[0].hyp),),
        eval_every=math.gcd(settings.epochs, *(settings.halving.epochs if settings.halving else ())),
        patience=None,
        max_minutes=None,
        sync_bn=False,
        compile=False,
        device=full.device if settings.gpus_per_trial else "cpu",
        loader_workers=0,
    )


def search_digest(params: Params, config: TrainConfig) -> str:
    """SHA-256 (hex) of what determines each trial's values and figures: neither the budget nor the CPUs and GPUs."""
    limits = {"trials", "minutes", "gpu_hours", "cpus_per_trial", "gpus_per_trial", "confirm"}
    what = {"evolve": params.evolve.model_dump(exclude=limits), "train": config.identity()}
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
