"""The Ray Tune part of a search: proposals from the ledger, and workers that run one trial after another.

Call `components.evolution.ray_settings.apply` before importing it.
"""

import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypedDict, cast

from ray import tune
from ray.tune.search import ConcurrencyLimiter, Searcher

from components.evolution.budget import Budget, BudgetTracker, Resources
from components.evolution.cluster import DIED, GRACE_S, cluster
from components.evolution.ledger import Ledger, Record
from components.evolution.trial import Splits, TrialPlan, TrialResult, failure, load_splits, run_trial
from yolo_core.evolution import Individual, Mutation, propose, rung_limits

POLL_S = 0.1  # between polls of an idle worker


class TrialConfig(TypedDict):
    """What Tune passes to a trial; the arguments of `run_trial`."""

    hyp: dict[str, float]
    deadline: float
    limits: list[float]
    name: str


@dataclass(frozen=True)
class Proposal:
    """The values of a running trial."""

    trial: int
    parent: int | None
    hyp: dict[str, float]


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
    """Run the trials missing from the ledger until the budget is spent; each result goes into the ledger at once.

    began: Unix time at which the search would have begun had it never been interrupted.
    Raises UserError when the machine lacks the resources for a trial.
    """
    tracker = BudgetTracker(budget, resources, ledger)
    if tracker.seconds_left <= 0:
        return
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # failures are in the ledger, with their reasons
    proposals = Proposals(plan, start, mutation, tracker, began, on_record)
    with cluster(resources), tempfile.TemporaryDirectory(prefix="evolve-") as storage:
        trainable = tune.with_resources(
            tune.with_parameters(Trial, plan=plan), {"CPU": resources.cpus, "GPU": resources.gpus}
        )
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=ConcurrencyLimiter(proposals, resources.concurrent),
                num_samples=len(proposals.waiting),
                reuse_actors=True,
                time_budget_s=max(budget.seconds_left, 0) + GRACE_S,
            ),
            run_config=tune.RunConfig(
                storage_path=storage,
                verbose=0,
                stop=proposals.may_end,
                failure_config=tune.FailureConfig(max_failures=1),  # a lost process is replaced once
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        )
        tuner.fit()


class Proposals(Searcher):
    """Proposes children of the ledger's trials, by number; a trial missing from the ledger runs again."""

    def __init__(
        self,
        plan: TrialPlan,
        start: dict[str, float],
        mutation: Mutation,
        tracker: BudgetTracker,
        began: float,
        on_record: Callable[[Record], None],
    ) -> None:
        super().__init__()
        self.plan, self.start, self.mutation, self.tracker = plan, start, mutation, tracker
        self.ledger, self.lag = tracker.ledger, tracker.resources.concurrent
        self.began, self.on_record = began, on_record
        self.waiting = [trial for trial in range(tracker.budget.trials) if trial not in self.ledger.records]
        self.running: dict[str, Proposal] = {}

    def suggest(self, trial_id: str) -> TrialConfig | str | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        left = self.tracker.seconds_left
        if not self.waiting or left <= 0:
            return Searcher.FINISHED
        child = self._next()
        if child is None:
            return None
        trial = self.waiting.pop(0)
        parent, hyp = child
        self.running[trial_id] = Proposal(trial, parent, hyp)
        self.tracker.started(trial_id)
        return {"hyp": hyp, "deadline": time.time() + left, "limits": self._limits(trial), "name": f"trial-{trial}"}

    def _next(self) -> tuple[int | None, dict[str, float]] | None:
        """Parent and values of the next waiting trial; None while an earlier one has to end first."""
        finished = [
            Individual(one.trial, one.hyp, one.fitness, failed=one.reason is not None or one.stopped_at is not None)
            for one in self.ledger.records.values()
        ]
        trial, seed = self.waiting[0], self.plan.config.seed
        return propose(finished, self.start, seed=seed, trial=trial, lag=self.lag, mutation=self.mutation)

    def _limits(self, trial: int) -> list[float]:
        """Fitness that the trial needs at each rung, from the same earlier trials as its values: it is reproducible."""
        earlier = [self.ledger.records[number].rungs for number in range(trial - self.lag + 1)]
        return rung_limits(earlier, len(self.plan.rungs), self.plan.keep)

    def may_end(self, trial_id: str, result: Mapping[str, object]) -> bool:
        """Record a trial's result once it is there, and keep its worker until there is another trial for it.

        Tune discards a worker that is idle while there is no next trial; a new one takes seconds to start.
        """
        result = cast(TrialResult, result)
        self._record(trial_id, result)
        return not result.get("ended") or not self.waiting or self.tracker.seconds_left <= 0 or self._next() is not None

    def on_trial_complete(self, trial_id: str, result: Mapping[str, object] | None = None, error: bool = False) -> None:
        died = error and self.tracker.seconds_left > 0
        self._record(trial_id, failure(DIED, 0.0) if died else cast("TrialResult | None", result))
        self.tracker.ended(trial_id)

    def _record(self, trial_id: str, result: TrialResult | None) -> None:
        proposal = self.running.get(trial_id)
        if proposal is None or not result or not result.get("ended"):
            return  # already recorded, or stopped by the budget: then it may run again with a larger one
        del self.running[trial_id]
        self.tracker.ended(trial_id)
        record = _record_of(proposal, result, elapsed=round(time.time() - self.began, 3))
        self.ledger.append(record)
        shutil.rmtree(self.plan.work / f"trial-{record.trial}", ignore_errors=True)
        self.on_record(record)

    def save(self, checkpoint_path: str) -> None:
        """No-op: the ledger is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """No-op: the ledger is the state."""

    def __getstate__(self) -> dict[str, object]:
        return {}  # Tune pickles the searcher; its state belongs to this process


def _record_of(proposal: Proposal, result: TrialResult, elapsed: float) -> Record:
    return Record(
        proposal.trial,
        proposal.parent,
        proposal.hyp,
        fitness=result.get("fitness", 0.0),
        AP=result.get("AP", 0.0),
        AP50=result.get("AP50", 0.0),
        seconds=result.get("seconds", 0.0),
        elapsed=elapsed,
        reason=result.get("reason"),
        rungs=result.get("rungs", []),
        stopped_at=result.get("stopped_at"),
    )


class Trial(tune.Trainable):
    """One training after another on a worker that stays warm: `reset_config` sets the next one."""

    def setup(self, config: TrialConfig, plan: TrialPlan) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        self.plan, self.trial_config = plan, config
        self.result: TrialResult | None = None

    def reset_config(self, new_config: TrialConfig) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride]
        self.trial_config, self.result = new_config, None
        return True

    @cached_property
    def splits(self) -> Splits:
        """Training and validation images, read once for all trials of this worker."""
        return load_splits(self.plan)

    def step(self) -> dict[str, object]:
        """The training's result, repeated until `Proposals.may_end`."""
        if self.result is None:
            self.result = run_trial(self.plan, lambda: self.splits, **self.trial_config)
        else:
            time.sleep(POLL_S)
        return {**self.result}
