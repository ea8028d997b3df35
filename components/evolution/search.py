"""The Ray side of evolution: a Tune search that proposes from the ledger, and the training that runs on a worker."""

import json
import logging
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

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
from ray.exceptions import RayError  # noqa: E402
from ray.tune.search import ConcurrencyLimiter, Searcher  # noqa: E402

from components.evolution.ledger import Confirmation, Ledger, Record  # noqa: E402
from components.training.ray_cluster import connected  # noqa: E402
from yolo_core.atomic import write_json  # noqa: E402
from yolo_core.data.cache import CacheSettings  # noqa: E402
from yolo_core.errors import TryAgain, UserError  # noqa: E402
from yolo_core.evolution import Individual, Mutation, propose, rung_limits  # noqa: E402
from yolo_core.hyperparameters import Hyperparameters  # noqa: E402
from yolo_core.train import EpochRow, TrainConfig  # noqa: E402

GRACE = 60.0  # seconds after the limit at which a trial that does not look at the clock is killed
POLL = 0.1  # seconds between the questions of an idle worker
DIED = "the trial's process ended without a result"
# Images that a training sees from which on it is checkpointed: a minute or more on any device, so that the second or so
# of each checkpoint pays.
LONG_IMAGES = 20_000
RUNGS = "rungs.json"


@dataclass(frozen=True)
class TrialPlan:
    """What is the same in every trial.

    config: the training of the starting point. images: how decoded ones are held. train_images, val_images: the part
    of each split, drawn by the seed; None for all.
    threads: of PyTorch in a trial. work: folder for the checkpoints of long ones.
    halving: epochs of the rungs, and the share of the trials that goes on at each.
    """

    config: TrainConfig
    data: Path
    images: CacheSettings
    train_images: int | None
    val_images: int | None
    threads: int
    work: Path
    rungs: tuple[int, ...] = ()
    keep: float = 1.0


@dataclass(frozen=True)
class Budget:
    """Trials in all, and the moment (Unix time) when those still running are stopped and no other starts.

    gpu_seconds: what all of them may take, each second counting as many times as a trial holds GPUs.
    """

    trials: int
    deadline: float
    gpu_seconds: float = math.inf

    @property
    def seconds_left(self) -> float:
        return self.deadline - time.time()


@dataclass(frozen=True)
class Resources:
    """Trials at a time, and what each holds; fractions are allowed."""

    concurrent: int
    cpus: float = 1.0
    gpus: float = 0.0


@dataclass
class Purse:
    """What is left of a budget while trainings run. started: Unix time of those under way, by any name."""

    budget: Budget
    resources: Resources
    ledger: Ledger
    started: dict[str, float] = field(default_factory=dict)

    @property
    def seconds_left(self) -> float:
        """Until the minutes are spent, or the GPU-hours with as many trainings at a time as there may be."""
        if math.isinf(self.budget.gpu_seconds):
            return self.budget.seconds_left
        under_way = sum(time.time() - began for began in self.started.values())
        left = self.budget.gpu_seconds - self.resources.gpus * (self.ledger.seconds + under_way)
        return min(self.budget.seconds_left, left / (self.resources.gpus * self.resources.concurrent))


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
    purse = Purse(budget, resources, ledger)
    if purse.seconds_left <= 0:
        return
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # failures are in the ledger, with their reasons
    proposals = Proposals(plan, start, mutation, purse, began, on_record)
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


@dataclass(frozen=True)
class Check:
    """A training that is to show what a trial's values are worth; see `Confirmation`."""

    trial: int
    seed: int
    hyp: dict[str, float]


def confirm(
    plan: TrialPlan,
    digest: str,
    checks: Sequence[Check],
    ledger: Ledger,
    *,
    budget: Budget,
    resources: Resources,
    began: float,
    on_record: Callable[[Confirmation], None],
) -> None:
    """Run the checks until the budget is spent; each one that ends is in the ledger at once, under the plan's digest.

    Raises UserError when the machine lacks what a training asks for.
    """
    purse, waiting = Purse(budget, resources, ledger), list(checks)
    if purse.seconds_left <= 0 or not waiting:
        return
    with _cluster(resources):
        remote = ray.remote(num_cpus=resources.cpus, num_gpus=resources.gpus, max_retries=1)(_check)
        running: dict[Any, Check] = {}
        while (waiting and purse.seconds_left > 0) or running:
            while waiting and len(running) < resources.concurrent and (left := purse.seconds_left) > 0:
                check = waiting.pop(0)
                reference = remote.remote(plan, check, time.time() + left)
                running[reference] = check
                purse.started[reference.hex()] = time.time()
            done, _ = ray.wait(list(running), timeout=max(0.0, purse.seconds_left) + GRACE)
            if not done:  # past the limit, and deaf
                for reference in running:
                    ray.cancel(reference, force=True)
                return
            for reference in done:
                check = running.pop(reference)
                del purse.started[reference.hex()]
                figures = _outcome(reference)
                if figures["ended"]:
                    known = {name: figures[name] for name in ("fitness", "AP", "AP50", "seconds", "reason")}
                    elapsed = round(time.time() - began, 3)
                    record = Confirmation(check.trial, check.seed, digest, **known, elapsed=elapsed)
                    ledger.append(record)
                    shutil.rmtree(plan.work / _name(check), ignore_errors=True)
                    on_record(record)


def _check(plan: TrialPlan, check: Check, deadline: float) -> dict[str, Any]:
    """One of the checks, on a worker."""
    plan = replace(plan, config=replace(plan.config, seed=check.seed))
    return attempt(plan, lambda: splits_of(plan), check.hyp, deadline, name=_name(check))


def _name(check: Check) -> str:
    return f"check-{check.trial}-{check.seed}"


def _outcome(reference: Any) -> dict[str, Any]:
    try:
        return ray.get(reference, timeout=GRACE)
    except RayError:
        return {"ended": True, **_failed(DIED, 0.0)}


class Proposals(Searcher):
    """Children of the ledger's trials, by number; whatever is not in the ledger runs again."""

    def __init__(
        self,
        plan: TrialPlan,
        start: dict[str, float],
        mutation: Mutation,
        purse: Purse,
        began: float,
        on_record: Callable[[Record], None],
    ) -> None:
        super().__init__()
        self.plan, self.start, self.mutation, self.purse = plan, start, mutation, purse
        self.ledger, self.lag, self.began, self.on_record = purse.ledger, purse.resources.concurrent, began, on_record
        self.waiting = [trial for trial in range(purse.budget.trials) if trial not in self.ledger.records]
        self.running: dict[str, dict[str, Any]] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        left = self.purse.seconds_left
        if not self.waiting or left <= 0:
            return Searcher.FINISHED
        proposal = self._next()
        if proposal is None:
            return None
        trial = self.waiting.pop(0)
        parent, hyp = proposal
        self.running[trial_id] = {"trial": trial, "parent": parent, "hyp": hyp}
        self.purse.started[trial_id] = time.time()
        return {"hyp": hyp, "deadline": time.time() + left, "limits": self._limits(trial), "name": f"trial-{trial}"}

    def _next(self) -> tuple[int | None, dict[str, float]] | None:
        """Parent and values of the first trial that waits; None while an earlier one has to end first."""
        finished = [
            Individual(one.trial, one.hyp, one.fitness, failed=one.reason is not None or one.stopped_at is not None)
            for one in self.ledger.records.values()
        ]
        trial, seed = self.waiting[0], self.plan.config.seed
        return propose(finished, self.start, seed=seed, trial=trial, lag=self.lag, mutation=self.mutation)

    def _limits(self, trial: int) -> list[float]:
        """What the trial has to reach at each rung, by the same earlier ones as its values: it can be repeated."""
        earlier = [self.ledger.records[number].rungs for number in range(trial - self.lag + 1)]
        return rung_limits(earlier, len(self.plan.rungs), self.plan.keep)

    def may_end(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Record a trial's result when it is there, and keep its worker until it has something else to do.

        Tune throws a worker away that is free while there is no next trial; a new one takes seconds to start.
        """
        self._record(trial_id, result, died=False)
        return not result.get("ended") or not self.waiting or self.purse.seconds_left <= 0 or self._next() is not None

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self._record(trial_id, result or {}, died=error and self.purse.seconds_left > 0)
        self.purse.started.pop(trial_id, None)

    def _record(self, trial_id: str, result: Mapping[str, Any], died: bool) -> None:
        known, figures = self.running.get(trial_id), _figures(result, died)
        if known is None or figures is None:
            return  # recorded already, or stopped by the budget: then it may run again when there is more
        del self.running[trial_id]
        self.purse.started.pop(trial_id, None)
        record = Record(**known, **figures, elapsed=round(time.time() - self.began, 3))
        self.ledger.append(record)
        shutil.rmtree(self.plan.work / f"trial-{record.trial}", ignore_errors=True)
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
    return {name: result[name] for name in FIGURES if name in result} if result.get("ended") else None


FIGURES = ("fitness", "AP", "AP50", "seconds", "reason", "rungs", "stopped_at")


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
        return splits_of(self.plan)

    def step(self) -> dict[str, Any]:
        """The training's result, and the same again until `Proposals.may_end`."""
        if self.result is None:
            self.result = attempt(self.plan, lambda: self.splits, **self.asked)
        else:
            time.sleep(POLL)
        return dict(self.result)


def splits_of(plan: TrialPlan) -> tuple[Any, Any]:
    """The images of training and validation that a plan asks for; also sets how many threads this process has."""
    import cv2
    import torch

    from yolo_core.data.coco import load_split

    cv2.setNumThreads(0)
    torch.set_num_threads(plan.threads)
    train_set, val_set = (load_split(plan.data, split, cache=plan.images) for split in ("train", "val"))
    seed = plan.config.seed
    return _part(train_set, plan.train_images, seed), _part(val_set, plan.val_images, seed)


def attempt(
    plan: TrialPlan,
    splits: Callable[[], tuple[Any, Any]],
    hyp: dict[str, float],
    deadline: float,
    limits: Sequence[float] = (),
    name: str = "trial",
) -> dict[str, Any]:
    """One training: its figures, or why it failed; `ended` is false where the deadline stopped it.

    splits: gives the images of training and validation. deadline: Unix time. limits: the fitness to reach at each rung
    to go on. name: of the folder for its checkpoints.
    """
    began = time.monotonic()
    try:
        train_set, val_set = splits()
        long = plan.config.phases[-1].epochs * len(train_set) >= LONG_IMAGES
        course = Course(plan.rungs, limits, plan.work / name if long else None)
        figures = train(plan.config, train_set, val_set, hyp, deadline, course)
    except OutOfTime:
        return {"ended": False}
    except Exception as error:  # whatever one set of values does to a training, the search goes on
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        return {"ended": True, **_failed(reason, time.monotonic() - began)}
    return {"ended": True, **figures, "seconds": round(time.monotonic() - began, 3), "reason": None}


class OutOfTime(Exception):
    """The budget ended during a trial."""


class Course:
    """The rungs of one trial, remembered beside its checkpoints, where it has any."""

    def __init__(self, rungs: Sequence[int], limits: Sequence[float], work: Path | None) -> None:
        self.work = work
        self._limits = dict(zip(rungs, limits, strict=False))
        self._reached: dict[str, float] = read_json(work / RUNGS) if work and (work / RUNGS).exists() else {}

    @property
    def reached(self) -> list[float]:
        """Fitness at each rung so far."""
        return list(self._reached.values())

    def ends_at(self, row: EpochRow) -> bool:
        """Take the figures of an epoch that has ended; whether they are not enough to go on."""
        from yolo_core.train.validation import fitness

        epoch = row["epoch"]
        if epoch not in self._limits:
            return False
        self._reached[str(epoch)] = fitness(row["AP"] or 0.0, row["AP50"] or 0.0)
        if self.work:
            write_json(self.work / RUNGS, self._reached)
        return self._reached[str(epoch)] < self._limits[epoch]


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def train(
    config: TrainConfig, train_set: Any, val_set: Any, hyp: dict[str, float], deadline: float, course: Course
) -> dict[str, Any]:
    """Figures of a training with the values `hyp`, ended early where its course ends; OutOfTime at the deadline."""
    import torch

    from yolo_core.train import fit
    from yolo_core.train.validation import fitness

    phases = tuple(replace(phase, hyp=Hyperparameters(**hyp)) for phase in config.phases)
    try:
        result = fit(
            replace(config, phases=phases),
            train_set,
            val_set,
            work=course.work,
            on_epoch=course.ends_at,
            should_stop=lambda: time.time() >= deadline,
        )
    except TryAgain:  # it has written a checkpoint
        raise OutOfTime from None
    if result.ended_early:
        row = result.rows[-1]
        ap, ap50 = row["AP"] or 0.0, row["AP50"] or 0.0
        figures = {"fitness": fitness(ap, ap50), "AP": ap, "AP50": ap50}
        return {**figures, "rungs": course.reached, "stopped_at": row["epoch"]}
    if not all(torch.isfinite(tensor).all() for tensor in result.model.state_dict().values()):
        raise ArithmeticError("the trained weights are not finite")
    return {**{name: float(result.best[name]) for name in ("fitness", "AP", "AP50")}, "rungs": course.reached}


def _part(split: Any, images: int | None, seed: int) -> Any:
    """`images` images of a split, the same for the same seed; the whole split when it has no more."""
    import numpy as np

    if images is None or images >= len(split):
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
