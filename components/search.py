"""The Ray side of evolution: a Tune search that proposes from the ledger, and the trial that runs on a worker."""

import logging
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

# Read by Ray when it is imported: no usage reports, no files beside the ledger, no warnings; Ctrl-C ends the search.
QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "100000",
    "TUNE_FORCE_TRIAL_CLEANUP_S": "30",
    "TUNE_WARN_THRESHOLD_S": "100000",
}
os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})

import ray  # noqa: E402
from ray import tune  # noqa: E402
from ray.tune.search import ConcurrencyLimiter, Searcher  # noqa: E402

from components.ledger import Ledger, Record  # noqa: E402
from components.ray_cluster import connected  # noqa: E402
from yolo_core.data.cache import CacheSettings  # noqa: E402
from yolo_core.errors import UserError  # noqa: E402
from yolo_core.evolution import Individual, Mutation, propose  # noqa: E402
from yolo_core.hyperparameters import Hyperparameters  # noqa: E402
from yolo_core.train.loop import TrainConfig  # noqa: E402

T = TypeVar("T")
GRACE = 60.0  # seconds after the limit at which a trial that does not look at the clock is killed
POLL = 0.1  # seconds between the questions of an idle worker
DIED = "the trial's process ended without a result"


@dataclass(frozen=True)
class TrialPlan:
    """What is the same in every trial.

    config: the training of the starting point. images: how decoded ones are held. train_images, val_images: the part
    of each split, drawn by the seed.
    threads: of PyTorch in a trial.
    """

    config: TrainConfig
    data: Path
    images: CacheSettings
    train_images: int
    val_images: int
    threads: int


@dataclass(frozen=True)
class Budget:
    """Trials in all, and the moment (Unix time) when those still running are stopped and no other starts."""

    trials: int
    deadline: float

    @property
    def seconds_left(self) -> float:
        return self.deadline - time.time()


@dataclass(frozen=True)
class Resources:
    """Trials at a time, and what each holds; fractions are allowed."""

    concurrent: int
    cpus: float
    gpus: float


def search(
    plan: TrialPlan,
    start: dict[str, float],
    ledger: Ledger,
    *,
    mutation: Mutation,
    budget: Budget,
    resources: Resources,
    began: float,
    on_record: Callable[[Record], None],
) -> None:
    """Run the trials that the ledger lacks until the budget is spent; each one that ends is in the ledger at once.

    began: Unix time at which the search would have begun had it never been stopped.
    Raises UserError when the machine lacks what a trial asks for.
    """
    if budget.seconds_left <= 0:
        return
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # failures are in the ledger, with their reasons
    proposals = Proposals(plan.config.seed, start, ledger, mutation, budget, resources.concurrent, began, on_record)
    with _cluster(resources), tempfile.TemporaryDirectory(prefix="evolve-") as storage:
        trainable = tune.with_resources(
            tune.with_parameters(Trial, plan=plan), {"CPU": resources.cpus, "GPU": resources.gpus}
        )
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=ConcurrencyLimiter(proposals, resources.concurrent),
                num_samples=len(proposals.waiting),
                reuse_actors=True,
                time_budget_s=max(budget.seconds_left, 0) + GRACE,
            ),
            run_config=tune.RunConfig(
                storage_path=storage,
                verbose=0,
                stop=proposals.may_end,
                failure_config=tune.FailureConfig(max_failures=1),  # a lost process gets a second one
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        )
        tuner.fit()


class Proposals(Searcher):
    """Children of the ledger's trials, by number; whatever is not in the ledger runs again."""

    def __init__(
        self,
        seed: int,
        start: dict[str, float],
        ledger: Ledger,
        mutation: Mutation,
        budget: Budget,
        lag: int,
        began: float,
        on_record: Callable[[Record], None],
    ) -> None:
        super().__init__()
        self.seed, self.start, self.ledger, self.mutation = seed, start, ledger, mutation
        self.budget, self.lag, self.began, self.on_record = budget, lag, began, on_record
        self.waiting = [trial for trial in range(budget.trials) if trial not in ledger.records]
        self.running: dict[str, dict[str, Any]] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if not self.waiting or self.budget.seconds_left <= 0:
            return Searcher.FINISHED
        proposal = self._next()
        if proposal is None:
            return None
        trial = self.waiting.pop(0)
        parent, hyp = proposal
        self.running[trial_id] = {"trial": trial, "parent": parent, "hyp": hyp}
        return {"hyp": hyp, "deadline": self.budget.deadline}

    def _next(self) -> tuple[int | None, dict[str, float]] | None:
        """Parent and values of the first trial that waits; None while an earlier one has to end first."""
        finished = [
            Individual(one.trial, one.hyp, one.fitness, failed=one.reason is not None)
            for one in self.ledger.records.values()
        ]
        trial = self.waiting[0]
        return propose(finished, self.start, seed=self.seed, trial=trial, lag=self.lag, mutation=self.mutation)

    def may_end(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Record a trial's result when it is there, and keep its worker until it has something else to do.

        Tune throws a worker away that is free while there is no next trial; a new one takes seconds to start.
        """
        self._record(trial_id, result, died=False)
        return not result.get("ended") or not self.waiting or self.budget.seconds_left <= 0 or self._next() is not None

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self._record(trial_id, result or {}, died=error and self.budget.seconds_left > 0)

    def _record(self, trial_id: str, result: Mapping[str, Any], died: bool) -> None:
        known, figures = self.running.get(trial_id), _figures(result, died)
        if known is None or figures is None:
            return  # recorded already, or stopped by the budget: then it may run again when there is more
        del self.running[trial_id]
        record = Record(**known, **figures, elapsed=round(time.time() - self.began, 3))
        self.ledger.append(record)
        self.on_record(record)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is the state."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its set-up; what is here belongs to this process


def _figures(result: Mapping[str, Any], died: bool) -> dict[str, Any] | None:
    """What the ledger keeps of a trial that ended or died; None for one that was stopped."""
    if died:
        return _failed(DIED, 0.0)
    return {name: result[name] for name in FIGURES} if result.get("ended") else None


FIGURES = ("fitness", "AP", "AP50", "seconds", "reason")


class Trial(tune.Trainable):
    """One training after another on a worker that stays warm: `reset_config` brings the next one."""

    def setup(self, config: dict[str, Any], plan: TrialPlan) -> None:
        self.plan, self.asked, self.result = plan, config, None

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.asked, self.result = new_config, None
        return True

    @cached_property
    def splits(self) -> tuple[Any, Any]:
        """The images of training and validation; read once for all trials of this worker."""
        import cv2
        import torch

        from yolo_core.data.coco import load_split

        cv2.setNumThreads(0)
        torch.set_num_threads(self.plan.threads)
        seed = self.plan.config.seed
        train_set, val_set = (load_split(self.plan.data, split, cache=self.plan.images) for split in ("train", "val"))
        return _part(train_set, self.plan.train_images, seed), _part(val_set, self.plan.val_images, seed)

    def step(self) -> dict[str, Any]:
        """The training's result, and the same again until `Proposals.may_end`."""
        if self.result is None:
            self.result = attempt(self.plan.config, lambda: self.splits, **self.asked)
        else:
            time.sleep(POLL)
        return dict(self.result)


def attempt(
    config: TrainConfig, splits: Callable[[], tuple[Any, Any]], hyp: dict[str, float], deadline: float
) -> dict[str, Any]:
    """One training: its figures, or why it failed; `ended` is false where the deadline stopped it.

    splits: gives the images of training and validation. deadline: Unix time.
    """
    began = time.monotonic()
    try:
        figures = train(config, *splits(), hyp, deadline)
    except OutOfTime:
        return {"ended": False}
    except Exception as error:  # whatever one set of values does to a training, the search goes on
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        return {"ended": True, **_failed(reason, time.monotonic() - began)}
    return {"ended": True, **figures, "seconds": round(time.monotonic() - began, 3), "reason": None}


class OutOfTime(Exception):
    """The budget ended during a trial."""


def train(
    config: TrainConfig, train_set: Any, val_set: Any, hyp: dict[str, float], deadline: float
) -> dict[str, float]:
    """Fitness, AP and AP50 of a training with the values `hyp`; OutOfTime when the deadline passes."""
    import torch

    from yolo_core.train.loop import fit

    phases = tuple(replace(phase, hyp=Hyperparameters(**hyp)) for phase in config.phases)
    result = fit(replace(config, phases=phases), train_set, val_set, progress=_until(deadline))
    if not all(torch.isfinite(tensor).all() for tensor in result.model.state_dict().values()):
        raise ArithmeticError("the trained weights are not finite")
    return {name: float(result.best[name]) for name in ("fitness", "AP", "AP50")}


def _until(deadline: float) -> Callable[..., Iterator[Any]]:
    """A progress report that says nothing and stops the work at the deadline."""

    def track(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        for item in items:
            if time.time() >= deadline:
                raise OutOfTime
            yield item

    return track


def _part(split: Any, images: int, seed: int) -> Any:
    """`images` images of a split, the same for the same seed; the whole split when it has no more."""
    import numpy as np

    if images >= len(split):
        return split
    chosen = np.random.default_rng(seed).choice(len(split), images, replace=False)
    return split.subset(sorted(chosen.tolist()))


def _failed(reason: str, seconds: float) -> dict[str, Any]:
    return {"fitness": 0.0, "AP": 0.0, "AP50": 0.0, "seconds": round(seconds, 3), "reason": reason}


@contextmanager
def _cluster(resources: Resources) -> Iterator[None]:
    """Ray with what one trial asks for: more processors than the machine has are promised, GPUs are not."""
    with connected(math.ceil(resources.cpus), show_workers=False):
        gpus = ray.cluster_resources().get("GPU", 0)
        if not os.environ.get("RAY_ADDRESS") and resources.gpus > gpus:
            raise UserError(f"evolve.gpus_per_trial = {resources.gpus:g}: this machine has {gpus:g} GPUs; ask for less")
        yield
