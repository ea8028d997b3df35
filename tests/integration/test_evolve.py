"""The evolve stage with real trainings on Ray Tune: results, budget, failures, and going on after a kill."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from components import anchors, evolve, prepare
from components.ledger import Ledger, Record, opened
from components.params import Params, load
from yolo_core.data.coco import load_split
from yolo_core.evolution import Individual, Mutation, propose

MODEL = "yolov4-tiny"
TINY = [
    "prepare.digits.train_images=12",
    "prepare.digits.val_images=6",
    "prepare.digits.image_size=64",
    "anchors.generations=20",
    "train.size=64",
    "train.batch=4",
    "train.nominal_batch=4",
    "evolve.train_images=8",
    "evolve.val_images=4",
    "evolve.epochs=1",
    "evolve.trials=4",
    "evolve.concurrent=2",
    "evolve.minutes=10",
]


def params(*overrides: str) -> Params:
    return load(Path("params.yaml"), [*TINY, *overrides])


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data` and `anchors`."""
    folder = tmp_path_factory.mktemp("evolve")
    prepare.run(params(), out=folder / "data")
    anchors.run(params(), data=folder / "data", out=folder / "anchors")
    return folder


def run(folder: Path, prepared: Path, *overrides: str) -> dict:
    return evolve.run(
        params(*overrides),
        data=prepared / "data",
        anchors=prepared / "anchors",
        out=folder / "out",
        work=folder / "work",
    )


def records(path: Path) -> dict[int, Record]:
    lines = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    return {line["trial"]: Record(**line) for line in lines}


def results(path: Path) -> dict[int, tuple]:
    """What a ledger says of each trial, times aside."""
    return {trial: (r.parent, r.hyp, r.fitness, r.AP, r.AP50, r.reason) for trial, r in records(path).items()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, prepared: Path) -> Path:
    """A search that ran to its end."""
    folder = tmp_path_factory.mktemp("finished")
    summary = run(folder, prepared)
    assert summary["trials"] == "4 of 4"
    return folder


def test_a_search_runs_its_budget_and_writes_its_results(finished):
    ledger = records(finished / "out" / "ledger.jsonl")
    assert sorted(ledger) == [0, 1, 2, 3]
    assert ledger[0].parent is None
    assert ledger[1].parent == 0
    assert all(record.reason is None and record.seconds > 0 for record in ledger.values())
    found = yaml.safe_load((finished / "out" / "hyp.yaml").read_text())
    assert found["trials"] == 4
    assert found["model"] == MODEL
    assert found["fitness"] == max(record.fitness for record in ledger.values())
    assert (finished / "out" / "fitness.png").read_bytes().startswith(b"\x89PNG")


def test_children_are_those_that_the_ledger_and_the_seed_give(finished):
    ledger = records(finished / "out" / "ledger.jsonl")
    population = [Individual(r.trial, r.hyp, r.fitness) for r in ledger.values()]
    for trial, record in ledger.items():
        expected = propose(population, ledger[0].hyp, seed=0, trial=trial, lag=2, mutation=Mutation())
        assert expected == (record.parent, record.hyp)


def test_later_trials_find_a_warm_worker(finished):
    ledger = records(finished / "out" / "ledger.jsonl")
    starts = {trial: record.elapsed - record.seconds for trial, record in ledger.items()}
    for trial in (2, 3):  # of two at a time: each begins when those before the one beside it have ended
        ended = max(record.elapsed for earlier, record in ledger.items() if earlier <= trial - 2)
        assert starts[trial] - ended < starts[0] / 4  # the first waits for Ray and for a process that imports PyTorch


def test_a_finished_search_is_not_run_again(finished, prepared):
    before = (finished / "out" / "ledger.jsonl").read_bytes()
    began = time.monotonic()
    run(finished, prepared)
    assert time.monotonic() - began < 5  # neither Ray nor a training
    assert (finished / "out" / "ledger.jsonl").read_bytes() == before


@pytest.mark.slow
def test_a_killed_search_goes_on_with_the_same_children(finished, prepared, tmp_path):
    command = [sys.executable, "-m", "components.cli", "evolve", "--data", prepared / "data"]
    command += ["--anchors", prepared / "anchors", "--out", tmp_path / "out", "--work", tmp_path / "work"]
    command += [part for override in TINY for part in ("-S", override)]
    driver = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL)
    ledger = _wait_for_a_trial(driver, tmp_path / "work")
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    kept = ledger.read_bytes()
    ledger.write_bytes(kept + b'{"trial": 3, "par')  # and a line torn by the kill

    run(tmp_path, prepared)
    assert ledger.read_bytes().startswith(kept)
    assert results(tmp_path / "out" / "ledger.jsonl") == results(finished / "out" / "ledger.jsonl")


def _wait_for_a_trial(driver: subprocess.Popen, work: Path) -> Path:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        for ledger in work.glob("evolve/*/ledger.jsonl"):
            if ledger.read_bytes().count(b"\n") > 1:
                return ledger
        assert driver.poll() is None, "the search ended before it could be killed"
        time.sleep(0.05)
    pytest.fail("no trial ended within 300 s")


def test_no_trials_keep_the_recipe(prepared, tmp_path):
    assert run(tmp_path, prepared, "evolve.trials=0")["trials"] == "0 of 0"
    found = yaml.safe_load((tmp_path / "out" / "hyp.yaml").read_text())
    assert found == {"model": MODEL, "fitness": None, "start_fitness": None, "trials": 0, "hyp": {}}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"hyp.yaml", "ledger.jsonl", "fitness.png"}


def test_no_trial_starts_when_the_minutes_are_spent(prepared, tmp_path):
    assert run(tmp_path, prepared, "evolve.minutes=0.0000001")["trials"] == "0 of 4"


@pytest.mark.parametrize(
    ("fitness", "evolved"), [(0.3, {"lr0": 0.02}), (0.2049, {}), (0.1, {})], ids=["better", "by chance", "worse"]
)
def test_only_a_clear_winner_changes_hyperparameters(prepared, tmp_path, fitness, evolved):
    config = evolve.trial_config(params("evolve.trials=2"), prepared / "data", prepared / "anchors")
    digest = evolve.search_digest(params("evolve.trials=2"), config)
    start = dataclasses.asdict(config.phases[0].hyp)
    usual: dict[str, Any] = {"AP": 0.0, "AP50": 0.0, "seconds": 1.0, "elapsed": 1.0}
    with opened(tmp_path / "work" / "evolve" / digest[:16] / "ledger.jsonl", digest) as ledger:
        ledger.append(Record(0, None, start, fitness=0.2, **usual))
        ledger.append(Record(1, 0, start | {"lr0": 0.02}, fitness=fitness, **usual))
    run(tmp_path, prepared, "evolve.trials=2")
    assert yaml.safe_load((tmp_path / "out" / "hyp.yaml").read_text())["hyp"] == evolved


def test_more_trials_continue_the_search_and_other_settings_begin_another(prepared):
    def digest(*overrides: str) -> str:
        config = evolve.trial_config(params(*overrides), prepared / "data", prepared / "anchors")
        return evolve.search_digest(params(*overrides), config)

    assert digest() == digest("evolve.trials=9", "evolve.minutes=99", "evolve.cpus_per_trial=2")
    others = [digest("seed=1"), digest("evolve.epochs=2"), digest("evolve.sigma=0.3"), digest("train.hyp.lr0=0.02")]
    assert len({digest(), *others}) == 5


class TestTrial:
    """One training, in this process."""

    @pytest.fixture
    def attempt(self, prepared):
        from components.search import attempt

        config = evolve.trial_config(params(), prepared / "data", prepared / "anchors")
        splits = [load_split(prepared / "data", split) for split in ("train", "val")]

        def with_values(deadline: float = time.time() + 600, **values: float) -> dict:
            hyp = dataclasses.asdict(config.phases[0].hyp) | values
            return attempt(config, lambda: (splits[0], splits[1]), hyp, deadline)

        return with_values

    def test_gives_its_figures(self, attempt):
        result = attempt()
        assert result["ended"]
        assert result["reason"] is None
        assert result["fitness"] == pytest.approx(0.1 * result["AP50"] + 0.9 * result["AP"])

    def test_that_diverges_counts_as_nothing_and_says_why(self, attempt):
        result = attempt(lr0=1e30, warmup_epochs=0.0)
        assert (result["ended"], result["fitness"], result["AP"]) == (True, 0.0, 0.0)
        assert "not finite" in result["reason"]

    def test_stops_at_the_deadline(self, attempt):
        assert attempt(deadline=time.time()) == {"ended": False}


class TestProposals:
    """The search as Ray Tune sees it, without a cluster."""

    @pytest.fixture
    def ledger(self, tmp_path):
        with opened(tmp_path / "ledger.jsonl", "d") as ledger:
            yield ledger

    def proposals(self, ledger: Ledger, seconds: float = 60, trials: int = 4):
        from components.search import Budget, Proposals

        budget = Budget(trials, time.time() + seconds)
        return Proposals(0, {"lr0": 0.01}, ledger, Mutation(), budget, 2, time.time(), lambda record: None)

    def done(self, fitness: float = 0.1, reason: str | None = None) -> dict:
        return {"ended": True, "fitness": fitness, "AP": fitness, "AP50": fitness, "seconds": 1.0, "reason": reason}

    def test_waits_for_the_parents_and_then_ends(self, ledger):
        from ray.tune.search import Searcher

        search = self.proposals(ledger, trials=3)
        first, second = search.suggest("a"), search.suggest("b")
        assert isinstance(first, dict)
        assert isinstance(second, dict)
        assert first["hyp"] == {"lr0": 0.01} != second["hyp"]
        search.on_trial_complete("b", self.done(0.2))
        assert search.suggest("c") is None  # trial 2 of two at a time descends from trial 0, still running
        search.on_trial_complete("a", self.done(0.1))
        assert isinstance(search.suggest("c"), dict)
        assert search.suggest("d") == Searcher.FINISHED

    def test_keeps_a_worker_until_there_is_something_for_it_to_do(self, ledger):
        search = self.proposals(ledger, trials=4)
        for name in "ab":
            search.suggest(name)
        assert not search.may_end("b", self.done(0.2))  # its result is safe, but trial 2 descends from trial 0
        assert ledger.records[1].fitness == 0.2
        assert search.may_end("a", self.done(0.1))
        search.on_trial_complete("a", self.done(0.1))
        assert isinstance(search.suggest("c"), dict)
        assert search.may_end("b", self.done(0.2))  # for trial 3
        search.on_trial_complete("b", self.done(0.2))
        assert isinstance(search.suggest("d"), dict)
        assert search.may_end("d", self.done(0.3))  # none is left
        assert sorted(ledger.records) == [0, 1, 3]

    def test_lets_go_of_a_trial_that_the_budget_stopped(self, ledger):
        search = self.proposals(ledger, seconds=0.2)
        search.suggest("a")
        time.sleep(0.2)
        assert search.may_end("a", {"ended": False})
        assert not ledger.records

    def test_runs_only_what_the_ledger_lacks(self, ledger):
        search = self.proposals(ledger)
        for name in "abc":
            search.suggest(name)
        expected = search.running["b"]
        search.on_trial_complete("a", self.done())
        again = self.proposals(ledger)
        assert again.waiting == [1, 2, 3]
        again.suggest("x")
        assert again.running["x"] == expected

    def test_records_failures_and_lost_processes_but_not_what_the_budget_stopped(self, ledger):
        search = self.proposals(ledger)
        search.suggest("a")
        search.suggest("b")
        search.on_trial_complete("a", self.done(0.0, "ValueError: no"))
        search.on_trial_complete("b", error=True)
        assert [ledger.records[trial].fitness for trial in (0, 1)] == [0, 0]
        assert ledger.records[0].reason == "ValueError: no"
        assert "process" in (ledger.records[1].reason or "")
        search.suggest("c")
        search.on_trial_complete("c", {"ended": False})
        assert sorted(ledger.records) == [0, 1]

    def test_starts_nothing_after_the_deadline(self, ledger):
        from ray.tune.search import Searcher

        search = self.proposals(ledger, seconds=-1)
        assert search.suggest("a") == Searcher.FINISHED
