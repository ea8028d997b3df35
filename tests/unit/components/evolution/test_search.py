"""The search as Ray Tune sees it, without a cluster: what it proposes, records and drops."""

import math
import time
from pathlib import Path

import pytest

from components.evolution import ray_settings
from components.evolution.budget import Budget, BudgetTracker, Reserve, Resources
from components.evolution.ledger import Ledger, opened
from yolo_core.data.cache import CacheSettings
from yolo_core.evolution import Mutation
from yolo_core.train import TrainConfig


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """A stopped clock; its last item is the time."""
    times = [time.time()]
    monkeypatch.setattr(time, "time", lambda: times[-1])
    return times


@pytest.fixture
def ledger(tmp_path):
    with opened(tmp_path / "ledger.jsonl", "d") as ledger:
        yield ledger


@pytest.fixture
def proposals(tmp_path):
    def make(
        ledger: Ledger,
        seconds: float = 60,
        trials: int = 4,
        gpu_seconds: float = math.inf,
        rungs: tuple = (),
        reserve: Reserve = Reserve(),
    ):
        return make_proposals(ledger, tmp_path, Budget(trials, time.time() + seconds, gpu_seconds, reserve), rungs)

    return make


def make_proposals(ledger: Ledger, tmp_path: Path, budget: Budget, rungs: tuple):
    ray_settings.apply()
    from components.evolution.search import Proposals
    from components.evolution.trial import TrialPlan

    plan = TrialPlan(
        TrainConfig("yolov4-tiny", (), 64, 4), tmp_path, CacheSettings(), None, None, 1, tmp_path, rungs, 0.5
    )
    tracker = BudgetTracker(budget, Resources(2, 1, 0.5), ledger)
    return Proposals(plan, {"lr0": 0.01}, Mutation(), tracker, time.time(), lambda record: None)


def done(fitness: float = 0.1, reason: str | None = None) -> dict:
    return {"ended": True, "fitness": fitness, "AP": fitness, "AP50": fitness, "seconds": 1.0, "reason": reason}


def test_waits_for_the_parents_and_then_ends(ledger, proposals):
    from ray.tune.search import Searcher

    search = proposals(ledger, trials=3)
    first, second = search.suggest("a"), search.suggest("b")
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    assert first["hyp"] == {"lr0": 0.01} != second["hyp"]
    search.on_trial_complete("b", done(0.2))
    assert search.suggest("c") is None  # trial 2 of two at a time descends from trial 0, still running
    search.on_trial_complete("a", done(0.1))
    assert isinstance(search.suggest("c"), dict)
    assert search.suggest("d") == Searcher.FINISHED


def test_keeps_a_worker_until_there_is_something_for_it_to_do(ledger, proposals):
    search = proposals(ledger, trials=4)
    for name in "ab":
        search.suggest(name)
    assert not search.may_end("b", done(0.2))  # its result is safe, but trial 2 descends from trial 0
    assert ledger.records[1].fitness == 0.2
    assert search.may_end("a", done(0.1))
    search.on_trial_complete("a", done(0.1))
    assert isinstance(search.suggest("c"), dict)
    assert search.may_end("b", done(0.2))  # for trial 3
    search.on_trial_complete("b", done(0.2))
    assert isinstance(search.suggest("d"), dict)
    assert search.may_end("d", done(0.3))  # none is left
    assert sorted(ledger.records) == [0, 1, 3]


def test_drops_a_trial_that_the_budget_stopped(ledger, proposals, clock):
    search = proposals(ledger, seconds=0.2)
    search.suggest("a")
    clock.append(clock[-1] + 0.2)
    assert search.may_end("a", {"ended": False})
    assert not ledger.records


def test_runs_only_what_is_missing_from_the_ledger(ledger, proposals):
    search = proposals(ledger)
    for name in "abc":
        search.suggest(name)
    expected = search.running["b"]
    search.on_trial_complete("a", done())
    again = proposals(ledger)
    assert again.waiting == [1, 2, 3]
    again.suggest("x")
    assert again.running["x"] == expected


def test_records_failures_and_lost_processes_but_not_what_the_budget_stopped(ledger, proposals):
    search = proposals(ledger)
    search.suggest("a")
    search.suggest("b")
    search.on_trial_complete("a", done(0.0, "ValueError: no"))
    search.on_trial_complete("b", error=True)
    assert [ledger.records[trial].fitness for trial in (0, 1)] == [0, 0]
    assert ledger.records[0].reason == "ValueError: no"
    assert "process" in (ledger.records[1].reason or "")
    search.suggest("c")
    search.on_trial_complete("c", {"ended": False})
    assert sorted(ledger.records) == [0, 1]


def test_starts_nothing_after_the_deadline(ledger, proposals):
    from ray.tune.search import Searcher

    search = proposals(ledger, seconds=-1)
    assert search.suggest("a") == Searcher.FINISHED


def test_ends_when_the_gpu_hours_are_used_up(ledger, proposals):
    from ray.tune.search import Searcher

    search = proposals(ledger, gpu_seconds=10)
    config = search.suggest("a")
    assert isinstance(config, dict)
    # two at a time, half a GPU each
    assert config["deadline"] - time.time() == pytest.approx(10 / (0.5 * 2), abs=1e-3)
    search.on_trial_complete("a", done() | {"seconds": 8.0})
    config = search.suggest("b")
    assert isinstance(config, dict)
    assert config["deadline"] - time.time() == pytest.approx((10 - 8 * 0.5) / (0.5 * 2), abs=1e-3)
    search.on_trial_complete("b", done() | {"seconds": 12.0})
    assert search.suggest("c") == Searcher.FINISHED
    assert proposals(ledger, gpu_seconds=10).suggest("x") == Searcher.FINISHED  # another process counts them, too


def test_leaves_the_checks_of_the_winner_their_part_of_the_budget(ledger, proposals):
    from ray.tune.search import Searcher

    search = proposals(ledger, seconds=60, reserve=Reserve(trials=3, most=30))
    config = search.suggest("a")
    assert isinstance(config, dict)
    assert config["deadline"] - time.time() == pytest.approx(60)  # how long a trial takes is not known yet
    search.on_trial_complete("a", done() | {"seconds": 8.0})
    config = search.suggest("b")
    assert isinstance(config, dict)
    assert config["deadline"] - time.time() == pytest.approx(60 - 3 * 8)
    search.on_trial_complete("b", done() | {"seconds": 20.0})
    config = search.suggest("c")
    assert isinstance(config, dict)
    assert config["deadline"] - time.time() == pytest.approx(60 - 30)
    assert proposals(ledger, seconds=30, reserve=Reserve(3, 30)).suggest("x") == Searcher.FINISHED


def test_requires_of_a_trial_what_its_predecessors_reached(ledger, proposals):
    search = proposals(ledger, trials=5, rungs=(1, 2))
    for name, rungs in (("a", [0.1, 0.4]), ("b", [0.3])):
        config = search.suggest(name)
        assert isinstance(config, dict)
        assert config["limits"] == [-math.inf, -math.inf]
        search.on_trial_complete(name, done() | {"rungs": rungs, "stopped_at": 2 if name == "b" else None})
    config = search.suggest("c")  # trial 2 of two at a time: trial 0 alone counts
    assert isinstance(config, dict)
    assert config["limits"] == [0.1, 0.4]
    search.on_trial_complete("c", done() | {"rungs": [0.2, 0.5]})
    config = search.suggest("d")  # trials 0 and 1: the best two of three continue, the better one of two
    assert isinstance(config, dict)
    assert config["limits"] == [0.1, 0.4]
    assert ledger.records[1].stopped_at == 2
    assert search.running["d"].parent == 0  # one that was stopped has no children
