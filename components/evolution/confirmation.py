"""Confirms a winner: it and the starting point are trained again with other seeds."""

import hashlib
import json
import shutil
import time
from dataclasses import asdict, dataclass, replace
from itertools import takewhile
from typing import TYPE_CHECKING

from components.evolution.adoption import Gain, compare
from components.evolution.budget import BudgetTracker
from components.evolution.cluster import DIED, GRACE_S, cluster
from components.evolution.ledger import Confirmation, Record
from components.evolution.messages import confirmation_line, lost_line, say
from components.evolution.setup import Search
from components.evolution.trial import TrialPlan, TrialResult, failure, load_splits, run_trial

if TYPE_CHECKING:
    from ray import ObjectRef


@dataclass(frozen=True)
class Training:
    """A training that checks a trial's values."""

    trial: int
    seed: int
    hyp: dict[str, float]


def confirmed_gain(search: Search, best: Record) -> Gain | None:
    """The gain of the winner over the starting point; None if the budget ran out, or a process was lost, before.

    Both are trained with the same seeds, but not with the search's own: the winner was chosen by that one.
    Raises UserError when the machine lacks the resources for a training.
    """
    checks = Checks(search, best)
    if checks.gain() is None:
        _run(checks)
    return checks.gain()


class Checks:
    """The trainings that decide on a winner, and their results so far, which are in the ledger."""

    def __init__(self, search: Search, best: Record) -> None:
        self.search, self.best = search, best
        self.plan = search.check_plan()
        self.digest = _digest(self.plan)
        self.seeds = [search.config.seed + 1 + number for number in range(search.settings.confirm.seeds)]

    def missing(self) -> list[Training]:
        """Seed by seed, so that the first ones may decide."""
        values, known = {0: asdict(self.search.start), self.best.trial: self.best.hyp}, self._known()
        wanted = [Training(trial, seed, values[trial]) for seed in self.seeds for trial in values]
        return [one for one in wanted if (one.trial, one.seed) not in known]

    def gain(self) -> Gain | None:
        """None while it is open."""
        known = self._known()
        done = list(takewhile(lambda seed: {(0, seed), (self.best.trial, seed)} <= known.keys(), self.seeds))
        winner, start = ([known[trial, seed] for seed in done] for trial in (self.best.trial, 0))
        return compare(winner, start, len(self.seeds))

    def _known(self) -> dict[tuple[int, int], float]:
        """Fitness by trial and seed."""
        found = self.search.ledger.confirmations
        return {(one.confirms, one.seed): one.fitness for one in found if one.plan == self.digest}

    def folder(self, training: Training) -> str:
        """Name of its checkpoint folder."""
        return f"check-{training.trial}-{training.seed}-{self.digest}"

    def record(self, training: Training, result: TrialResult) -> None:
        """Append a result to the ledger. A lost process says nothing about the values: it is not recorded."""
        if not result["ended"]:
            return
        if result.get("reason") == DIED:
            say(lost_line(training.trial, training.seed, DIED))
            return
        record = Confirmation(
            training.trial,
            training.seed,
            self.digest,
            fitness=result.get("fitness", 0.0),
            AP=result.get("AP", 0.0),
            AP50=result.get("AP50", 0.0),
            seconds=result.get("seconds", 0.0),
            elapsed=round(time.time() - self.search.began, 3),
            reason=result.get("reason"),
        )
        self.search.ledger.append(record)
        shutil.rmtree(self.plan.work / self.folder(training), ignore_errors=True)
        say(confirmation_line(record))


def _digest(plan: TrialPlan) -> str:
    """What the trainings of a plan have in common, apart from the seed of the search."""
    what = plan.config.identity()
    if plan.train_images is not None:
        what = {"train": what, "images": [plan.train_images, plan.val_images]}
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]


def _run(checks: Checks) -> None:
    """Run the missing trainings until the gain is decided or the budget spent."""
    search, waiting = checks.search, checks.missing()
    resources = search.resources
    tracker = BudgetTracker(search.budget, resources, search.ledger)
    if tracker.seconds_left <= 0:
        return
    with cluster(resources):
        import ray

        train = ray.remote(num_cpus=resources.cpus, num_gpus=resources.gpus, max_retries=1)(_train)
        running: dict[ObjectRef, Training] = {}
        while (waiting and tracker.seconds_left > 0) or running:
            while waiting and len(running) < resources.concurrent and (left := tracker.seconds_left) > 0:
                training = waiting.pop(0)
                name = checks.folder(training)
                running[train.remote(checks.plan, training, time.time() + left, name)] = training
                tracker.started(name)
            done, _ = ray.wait(list(running), timeout=max(0.0, tracker.seconds_left) + GRACE_S)
            for reference in done:
                training = running.pop(reference)
                tracker.ended(checks.folder(training))
                checks.record(training, _result(reference))
            if not done or checks.gain() is not None:  # past the deadline and ignoring it, or decided
                for reference in running:
                    ray.cancel(reference, force=True)
                return


def _train(plan: TrialPlan, training: Training, deadline: float, name: str) -> TrialResult:
    """One of the trainings, on a worker: with its own seed, on the images that the search's seed chose."""
    seeded = replace(plan, config=replace(plan.config, seed=training.seed))
    return run_trial(seeded, lambda: load_splits(plan), training.hyp, deadline, name=name)


def _result(reference: "ObjectRef") -> TrialResult:
    import ray
    from ray.exceptions import RayError

    try:
        return ray.get(reference, timeout=GRACE_S)
    except RayError:
        return failure(DIED, 0.0)
