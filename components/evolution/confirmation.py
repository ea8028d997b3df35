"""Confirms a winner: it and the starting point are trained at full length, with several seeds each."""

import dataclasses
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from components.evolution import ray_settings
from components.evolution.budget import BudgetTracker
from components.evolution.cluster import DIED, GRACE_S, cluster
from components.evolution.ledger import Confirmation, Record
from components.evolution.messages import confirmation_line, say
from components.evolution.setup import Search
from components.evolution.trial import TrialPlan, TrialResult, failure, load_splits, run_trial
from components.evolution.winner import LEAST_GAIN
from yolo_core.evolution import Gain, gain
from yolo_core.train import Phase

if TYPE_CHECKING:
    from ray import ObjectRef


@dataclass(frozen=True)
class FullTraining:
    """A full-length training that checks a trial's values."""

    trial: int
    seed: int
    hyp: dict[str, float]

    @property
    def name(self) -> str:
        """Of its checkpoint folder."""
        return f"check-{self.trial}-{self.seed}"


def confirmed_gain(search: Search, best: Record) -> Gain | None:
    """The gain of the winner over the starting point at full length; None if the budget ran out first.

    Both are trained with the same seeds, but not with the search's own: the winner was chosen by that one.
    """
    settings, seed = search.settings, search.config.seed
    assert settings.confirm
    epochs = settings.confirm.epochs or search.params.train_settings(settings.model).epochs
    config = dataclasses.replace(search.config, phases=(Phase(epochs, search.start),), eval_every=epochs)
    digest = hashlib.sha256(json.dumps(config.identity(), sort_keys=True).encode()).hexdigest()[:16]
    seeds = [seed + 1 + number for number in range(settings.confirm.seeds)]
    values = {0: dataclasses.asdict(search.start), best.trial: best.hyp}

    def known() -> dict[tuple[int, int], float]:
        return {(one.confirms, one.seed): one.fitness for one in search.ledger.confirmations if one.plan == digest}

    wanted = [FullTraining(trial, each, values[trial]) for each in seeds for trial in values]
    missing = [one for one in wanted if (one.trial, one.seed) not in known()]
    if missing:
        _run(search, search.trial_plan(config), digest, missing, lambda one: say(confirmation_line(one)))
    found = known()
    if any((one.trial, one.seed) not in found for one in wanted):
        return None
    return gain([found[best.trial, each] for each in seeds], [found[0, each] for each in seeds], LEAST_GAIN)


def _run(
    search: Search,
    plan: TrialPlan,
    digest: str,
    trainings: Sequence[FullTraining],
    on_record: Callable[[Confirmation], None],
) -> None:
    """Run the trainings until the budget is spent; each result goes into the ledger at once, under the digest.

    Raises UserError when the machine lacks the resources for a training.
    """
    resources, ledger, waiting = search.resources, search.ledger, list(trainings)
    tracker = BudgetTracker(search.budget, resources, ledger)
    if tracker.seconds_left <= 0:
        return
    ray_settings.apply()
    import ray

    with cluster(resources):
        train = ray.remote(num_cpus=resources.cpus, num_gpus=resources.gpus, max_retries=1)(_train)
        running: dict[ObjectRef, FullTraining] = {}
        while (waiting and tracker.seconds_left > 0) or running:
            while waiting and len(running) < resources.concurrent and (left := tracker.seconds_left) > 0:
                training = waiting.pop(0)
                reference = train.remote(plan, training, time.time() + left)
                running[reference] = training
                tracker.started(training.name)
            done, _ = ray.wait(list(running), timeout=max(0.0, tracker.seconds_left) + GRACE_S)
            if not done:  # past the deadline and ignoring it
                for reference in running:
                    ray.cancel(reference, force=True)
                return
            for reference in done:
                training = running.pop(reference)
                tracker.ended(training.name)
                result = _result(reference)
                if result["ended"]:
                    record = _record(training, digest, result, elapsed=round(time.time() - search.began, 3))
                    ledger.append(record)
                    shutil.rmtree(plan.work / training.name, ignore_errors=True)
                    on_record(record)


def _train(plan: TrialPlan, training: FullTraining, deadline: float) -> TrialResult:
    """One of the trainings, on a worker."""
    plan = replace(plan, config=replace(plan.config, seed=training.seed))
    return run_trial(plan, lambda: load_splits(plan), training.hyp, deadline, name=training.name)


def _result(reference: "ObjectRef") -> TrialResult:
    import ray
    from ray.exceptions import RayError

    try:
        return ray.get(reference, timeout=GRACE_S)
    except RayError:
        return failure(DIED, 0.0)


def _record(training: FullTraining, digest: str, result: TrialResult, elapsed: float) -> Confirmation:
    return Confirmation(
        training.trial,
        training.seed,
        digest,
        fitness=result.get("fitness", 0.0),
        AP=result.get("AP", 0.0),
        AP50=result.get("AP50", 0.0),
        seconds=result.get("seconds", 0.0),
        elapsed=elapsed,
        reason=result.get("reason"),
    )
