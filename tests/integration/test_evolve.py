"""The evolve stage with real trainings on Ray Tune: results, budget, failures, and resuming after a kill."""

import dataclasses
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import small_search
import yaml
from small_search import MODEL, SEARCH, params, records, results, run

from components.evolution.budget import Reserve
from components.evolution.confirmation import Checks
from components.evolution.ledger import Confirmation, Record, opened
from components.evolution.setup import Search, search_digest, trial_config
from yolo_core.evolution import Individual, Mutation, propose, rung_limits
from yolo_core.train import Phase


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data` and `anchors`."""
    return small_search.prepared(tmp_path_factory.mktemp("evolve"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, prepared: Path) -> Path:
    """A finished search with halving, on fractions of a CPU."""
    folder = tmp_path_factory.mktemp("finished")
    summary = run(folder, prepared, *SEARCH)
    assert summary["trials"] == "4 of 4"
    (folder / "processes").write_text("\n".join(actors()))
    return folder


def actors() -> list[str]:
    """The actors for which the last Ray cluster of this process started separate processes."""
    last = max(Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray").glob(f"session_*_{os.getpid()}"))
    logs = [path.read_text() for path in last.glob("logs/worker-*.out")]
    return [name for log in logs for name in re.findall(r"^:actor_name:(\w+)", log, re.MULTILINE)]


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
    population = [Individual(r.trial, r.hyp, r.fitness, failed=r.stopped_at is not None) for r in ledger.values()]
    for trial, record in ledger.items():
        expected = propose(population, ledger[0].hyp, seed=0, trial=trial, lag=2, mutation=Mutation())
        assert expected == (record.parent, record.hyp)


def test_trials_stop_at_the_rung_where_they_are_not_among_the_best(finished):
    ledger = records(finished / "out" / "ledger.jsonl")
    for trial, record in ledger.items():
        limits = rung_limits([ledger[earlier].rungs for earlier in range(trial - 1)], 2, 0.5)  # two at a time
        passed = [fitness >= limit for fitness, limit in zip(record.rungs, limits, strict=False)]
        assert passed == ([True, True] if record.stopped_at is None else [True] * (len(record.rungs) - 1) + [False])
        assert record.stopped_at in (None, len(record.rungs))


def test_later_trials_get_a_warm_worker(finished):
    """Starting a process that imports PyTorch takes longer than a short training."""
    assert (finished / "processes").read_text().split() == ["Trial", "Trial"]  # two at a time, four in all


def test_a_finished_search_is_not_run_again(finished, prepared, monkeypatch):
    before = (finished / "out" / "ledger.jsonl").read_bytes()
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # where no Ray runs
    run(finished, prepared, *SEARCH)
    assert (finished / "out" / "ledger.jsonl").read_bytes() == before


def _fake(
    tmp_path: Path,
    prepared: Path,
    *overrides: str,
    start: float = 0.2,
    fitness: float = 0.3,
    checks: Sequence[float] = (),
) -> Path:
    """A ledger of the starting point, a trial, and their checks: alternating, seed by seed."""
    given = params(*overrides)
    config = trial_config(given, prepared / "data", prepared / "anchors")
    digest = search_digest(given, config)
    values = dataclasses.asdict(config.phases[0].hyp)
    usual: dict[str, Any] = {"AP": 0.0, "AP50": 0.0, "seconds": 1.0, "elapsed": 1.0}
    path = tmp_path / "work" / "evolve" / digest[:16] / "ledger.jsonl"
    with opened(path, digest) as ledger:
        ledger.append(Record(0, None, values, fitness=start, **usual))
        ledger.append(Record(1, 0, values | {"lr0": 0.02}, fitness=fitness, **usual))
        plan = Checks(Search(given, config, ledger, prepared / "data", tmp_path, 0.0), ledger.records[1]).digest
        for number, value in enumerate(checks):
            ledger.append(Confirmation(number % 2, 1 + number // 2, plan, fitness=value, **usual))
    return path


def decided(tmp_path: Path) -> dict[str, Any]:
    return yaml.safe_load((tmp_path / "out" / "hyp.yaml").read_text())


TWO = "evolve.trials=2"
KEPT = "the starting point's hyperparameters are kept"


@pytest.mark.parametrize("plan", ["epochs: trial", "epochs: 1", "seeds: 3"], ids=["as a trial", "longer", "default"])
@pytest.mark.parametrize(
    ("checks", "evolved", "decision"),
    [
        (  # 9 of 9 pairs won: a chance of 1 / C(6, 3) = 0.05. Deviations 0.02 and 0.01
            [0.20, 0.30, 0.21, 0.32, 0.22, 0.34],
            {"lr0": 0.02},
            "with 3 other seeds 0.3200 +- 0.0200 and 0.2100 +- 0.0100: beyond the spread; the trial's hyperparameters "
            "are adopted",
        ),
        (  # 8 of 9: a chance of 2 / 20
            [0.20, 0.30, 0.21, 0.32, 0.31, 0.34],
            {},
            f"with 3 other seeds 0.3200 +- 0.0200 and 0.2400 +- 0.0608: within the spread; {KEPT}",
        ),
        (  # 3 of 4, so that 9 of 9 are out of reach: sqrt(2) / 2 times the differences 0.1 and 0.2
            [0.20, 0.30, 0.40, 0.50],
            {},
            f"with 2 other seeds 0.4000 +- 0.1414 and 0.3000 +- 0.1414: within the spread; {KEPT}",
        ),
        ([0.2] * 4, {}, f"with 2 other seeds 0.2000 +- 0.0000 and 0.2000 +- 0.0000: within the spread; {KEPT}"),
        (  # all pairs won, but by less than 0.005
            [0.200, 0.204] * 3,
            {},
            f"with 3 other seeds 0.2040 +- 0.0000 and 0.2000 +- 0.0000: within the spread; {KEPT}",
        ),
    ],
    ids=["beyond", "one pair short", "decided early", "equal", "too small a gain"],
)
def test_a_winner_within_the_spread_of_its_start_changes_nothing(
    prepared, tmp_path, capsys, monkeypatch, plan, checks, evolved, decision
):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # where no Ray runs
    confirm = (TWO, f"evolve.confirm={{{plan}}}")
    _fake(tmp_path, prepared, *confirm, checks=checks)
    facts = run(tmp_path, prepared, *confirm)
    found = decided(tmp_path)
    assert found["hyp"] == evolved
    assert found["decision"] == f"trial 1 scored 0.3000, the starting point 0.2000; {decision}"
    assert f"evolve: {found['decision']}\n" in capsys.readouterr().err
    assert facts["confirmed"].startswith("yes" if evolved else "no")
    assert found["confirmed"]["start"] == checks[::2]
    assert found["confirmed"]["winner"] == checks[1::2]


def test_checks_beyond_the_decision_do_not_count(prepared, tmp_path):
    """Several run at once: which of them end before the search does is chance."""
    _fake(tmp_path, prepared, TWO, checks=[0.20, 0.30, 0.40, 0.50, 0.1, 0.9])
    run(tmp_path, prepared, TWO)
    assert decided(tmp_path)["confirmed"]["start"] == [0.20, 0.40]


def test_a_winner_is_not_adopted_without_time_for_its_checks(prepared, tmp_path):
    _fake(tmp_path, prepared, TWO, checks=[0.2, 0.3])
    assert run(tmp_path, prepared, TWO, "evolve.minutes=0.001")["confirmed"] == "not finished"
    found = decided(tmp_path)
    assert found["hyp"] == {}
    assert found["decision"].endswith(f"its checks with other seeds did not finish; {KEPT}")


def test_checks_of_earlier_versions_count(prepared, tmp_path):
    """They were longer trainings on all images, under the digest of their configuration."""
    given = params(TWO, "evolve.confirm={epochs: 1}")
    config = trial_config(given, prepared / "data", prepared / "anchors")
    longer = dataclasses.replace(config, phases=(Phase(1, config.phases[0].hyp),), eval_every=1)
    digest = hashlib.sha256(json.dumps(longer.identity(), sort_keys=True).encode()).hexdigest()[:16]
    _fake(tmp_path, prepared, TWO, "evolve.confirm={epochs: 1}", checks=[0.2, 0.3] * 3)
    (ledger,) = (tmp_path / "work/evolve").glob("*/ledger.jsonl")
    assert {json.loads(line).get("plan") for line in ledger.read_text().splitlines()[3:]} == {digest}


def test_null_is_not_a_way_around_the_checks(prepared, tmp_path):
    _fake(tmp_path, prepared, TWO, checks=[0.2] * 4)
    run(tmp_path, prepared, TWO, "evolve.confirm=null")
    assert decided(tmp_path)["hyp"] == {}


@pytest.mark.slow
def test_checks_train_both_with_every_seed_and_are_not_run_again(prepared, tmp_path, monkeypatch):
    """As after a kill in the middle of them."""
    path = _fake(tmp_path, prepared, TWO, checks=[0.2, 0.3])  # those of the first seed exist already
    run(tmp_path, prepared, TWO, "evolve.cpus_per_trial=0.5")
    lines = path.read_text().splitlines()[5:]
    found = [json.loads(line) for line in lines]
    assert {(one["confirms"], one["seed"]) for one in found} >= {(0, 2), (1, 2)}
    assert all(one["reason"] is None and one["seconds"] > 0 for one in found)
    before = path.read_bytes()
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # where no Ray runs
    run(tmp_path, prepared, TWO, "evolve.cpus_per_trial=0.5")
    assert path.read_bytes() == before


@pytest.mark.slow
def test_a_killed_search_resumes_with_the_same_children(finished, prepared, tmp_path):
    command = [sys.executable, "-m", "components.cli", *small_search.words(tmp_path, prepared, *SEARCH)]
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    ledger = small_search.wait_for_a_trial(driver, tmp_path / "work")
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    kept = ledger.read_bytes()
    ledger.write_bytes(kept + b'{"trial": 3, "par')  # and a line torn by the kill

    run(tmp_path, prepared, *SEARCH)
    assert ledger.read_bytes().startswith(kept)
    assert results(tmp_path / "out" / "ledger.jsonl") == results(finished / "out" / "ledger.jsonl")


def test_no_trials_keep_the_recipe(prepared, tmp_path):
    assert run(tmp_path, prepared, "evolve.trials=0")["trials"] == "0 of 0"
    found = yaml.safe_load((tmp_path / "out" / "hyp.yaml").read_text())
    nothing = {"fitness": None, "start_fitness": None, "trials": 0, "confirmed": None, "hyp": {}}
    assert found == {"model": MODEL, **nothing, "decision": f"the starting point was not trained; {KEPT}"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"hyp.yaml", "ledger.jsonl", "fitness.png"}


def test_no_trial_starts_when_the_minutes_are_used_up(prepared, tmp_path):
    assert run(tmp_path, prepared, "evolve.minutes=0.0000001")["trials"] == "0 of 4"


@pytest.mark.parametrize("fitness", [0.2049, 0.2, 0.1], ids=["by chance", "tie", "worse"])
def test_a_trial_that_does_not_clearly_win_is_not_even_checked(prepared, tmp_path, fitness):
    _fake(tmp_path, prepared, TWO, fitness=fitness)
    assert run(tmp_path, prepared, TWO)["confirmed"] == "nothing to confirm"
    found = decided(tmp_path)
    assert found["hyp"] == {}
    assert found["decision"] == f"no trial beat the starting point's 0.2000 by 0.005; {KEPT}"


def test_the_trials_leave_time_for_the_checks(prepared, tmp_path):
    def reserve(*overrides: str) -> Reserve:
        given = params(*overrides, "evolve.minutes=4")  # 240 s, of which half is 120
        config = trial_config(given, prepared / "data", prepared / "anchors")
        with opened(tmp_path / f"{len(overrides)}.jsonl", "d") as ledger:
            return Search(given, config, ledger, prepared / "data", tmp_path, 0.0).trial_budget.reserve

    # twice 3 trainings, two at a time; 12 training images, of which a trial of one epoch takes 8
    assert reserve() == Reserve(3, 120)
    assert reserve("evolve.confirm={epochs: 4}") == Reserve(3 * 4 * 12 / 8, 120)
    assert reserve("evolve.gpu_hours=0.05", "evolve.gpus_per_trial=0.5") == Reserve(3, 0.05 * 3600 / (2 * 0.5) / 2)


def test_more_trials_continue_the_search_and_other_settings_begin_another(prepared):
    def digest(*overrides: str) -> str:
        config = trial_config(params(*overrides), prepared / "data", prepared / "anchors")
        return search_digest(params(*overrides), config)

    assert digest() == digest("evolve.trials=9", "evolve.minutes=99", "evolve.cpus_per_trial=2")
    others = [digest("seed=1"), digest("evolve.epochs=2"), digest("evolve.sigma=0.3"), digest("train.hyp.lr0=0.02")]
    assert len({digest(), *others}) == 5
