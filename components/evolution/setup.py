"""A search as set up by the parameters: its starting point, digest, trials, budget and resources."""

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path

from components.evolution.budget import Budget, Resources
from components.evolution.ledger import Ledger, Record
from components.evolution.trial import TrialPlan
from components.params import EvolveParams, Params
from components.training.configuration import configure, image_cache
from yolo_core.errors import UserError
from yolo_core.hyperparameters import Hyperparameters
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

    def trial_plan(self, config: TrainConfig) -> TrialPlan:
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
    def resources(self) -> Resources:
        settings = self.settings
        return Resources(settings.concurrent, settings.cpus_per_trial, settings.gpus_per_trial)


def trial_config(params: Params, data: Path, anchors: Path) -> TrainConfig:
    """The training of the starting point: as the stage `train` would run it, but shorter.

    The other trials differ only in their hyperparameters.
    """
    settings = params.evolve
    full = configure(params, settings.model, data, anchors / f"{settings.model}.json", None)
    return dataclasses.replace(
        full,
        phases=(Phase(settings.epochs, full.phases[0].hyp),),
        eval_every=math.gcd(settings.epochs, *(settings.halving.epochs if settings.halving else ())),
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
