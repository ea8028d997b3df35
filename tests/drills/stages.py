"""Drills of all stages in their order: SIGTERM in each of them, and a retraining that is asked for twice."""

import json
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from small_search import MODEL, TINY, results
from small_training import ROOT

from components import tracking
from tests.drills.grounds import LIMIT_S, Grounds, environment, same, stage, started
from tests.drills.report import Found, Lost
from tests.drills.training import BITS

CHANGES = [
    *TINY,
    f"models=[{MODEL}]",
    "train.epochs=5",
    "train.device=cpu",
    "train.checkpoint_every=3",
    "evolve.trials=2",
    "export.check_images=4",
    "export.openvino=[fp32]",
    "benchmark.batches=[1]",
    "benchmark.runs=2",
    "benchmark.warmup=0",
    "benchmark.threads=1",
    "promote.bootstrap_samples=100",
    "promote.max_latency_ratio=100",
]
OPTIONS = [f"--params={ROOT / 'params.yaml'}", *(f"-S{change}" for change in CHANGES)]
PART = 0.7  # of a stage's time, after which it is sent SIGTERM
PREEMPTED = {"train": 3}  # the exit code after SIGTERM where the stage has one of its own


def preempted(grounds: Grounds) -> Found:
    """A pass whose every stage is ended once gives what a pass gives that nothing disturbed."""
    whole, seconds = undisturbed(grounds)
    home, costs, told = _home(grounds, "preempted"), {}, []
    with _registry(home):
        for name in STAGES:
            code = _ended(home, name, after_s=PART * seconds[name])
            told.append(f"{name} {code}")
            began = time.monotonic()
            stage(home, name, *OPTIONS)
            costs[name] = time.monotonic() - began
            STAGES[name](whole, home)
        _check_versions(1)
    print(f"  exit codes: {', '.join(told)}")
    slowest = max(costs, key=lambda name: costs[name])
    return Found(
        f"one stage of {len(STAGES)} each time; the longest, {slowest}, {costs[slowest]:.0f} s", costs[slowest]
    )


def retrained_twice(grounds: Grounds) -> Found:
    """Once these data have a champion, a retraining that is asked for again, and by two at once, does nothing."""
    home, _ = undisturbed(grounds)
    with _registry(home):
        began = time.monotonic()
        with started(home, "retrain", *OPTIONS) as one, started(home, "retrain", *OPTIONS) as other:
            said = [process.communicate(timeout=LIMIT_S)[0] for process in (one, other)]
        seconds = time.monotonic() - began
        if one.returncode or other.returncode or not all("unchanged" in line for line in said):
            raise Lost(f"it was not turned away: {said}")
        _check_versions(1)
    return Found("nothing: each finds the champion, made of the same data, parameters and code", seconds)


@cache
def undisturbed(grounds: Grounds) -> tuple[Path, dict[str, float]]:
    """The folder of a pass that nothing disturbed, and the seconds of each stage."""
    home, seconds = _home(grounds, "undisturbed"), {}
    with _registry(home):
        stage(home, "prepare", *OPTIONS)
        asked = stage(home, "retrain", "--no-train", *OPTIONS)
        if "no champion yet" not in asked:
            raise Lost(f"the first retraining is not asked for: {asked}")
        for name in STAGES:
            began = time.monotonic()
            stage(home, name, *OPTIONS)
            seconds[name] = time.monotonic() - began
    return home, seconds


def _home(grounds: Grounds, name: str) -> Path:
    home = grounds.folder / name
    home.mkdir()
    return home


def _registry(home: Path):
    return environment(MLFLOW_TRACKING_URI=f"sqlite:///{home}/mlflow.db")


def _ended(home: Path, name: str, after_s: float) -> int:
    """Start a stage and send it SIGTERM; its exit code. A stage that had ended before is no drill."""
    with started(home, name, *OPTIONS) as process:
        time.sleep(after_s)
        process.terminate()
        code = process.wait(LIMIT_S)
    if code == 0:
        raise Lost(f"{name} had ended before SIGTERM came: nothing was tried")
    if code != PREEMPTED.get(name, code):
        raise Lost(f"SIGTERM ended {name} with exit code {code} instead of {PREEMPTED[name]}")
    return code


def _check_versions(count: int) -> None:
    found = tracking.connect().search_model_versions()
    if len(found) != count:
        raise Lost(f"{len(found)} versions are registered instead of {count}")


def _same_below(folder: str, pattern: str = "[!.]*") -> Callable[[Path, Path], None]:
    """Every file there is the same."""

    def check(whole: Path, home: Path) -> None:
        paths = [path for path in (whole / folder).rglob(pattern) if path.is_file()]
        if not paths:
            raise Lost(f"{folder}: nothing to compare")
        same(whole, home, *(str(path.relative_to(whole)) for path in paths))

    return check


def _same_facts(file: str, facts: Callable[[Any], Any]) -> Callable[[Path, Path], None]:
    """What a file says apart from times is the same."""

    def check(whole: Path, home: Path) -> None:
        one, other = (facts(json.loads((folder / file).read_text())) for folder in (whole, home))
        if one != other:
            raise Lost(f"{file}: {other} instead of {one}")

    return check


def _same_trials(whole: Path, home: Path) -> None:
    file = "outputs/evolve/ledger.jsonl"
    if results(whole / file) != results(home / file):
        raise Lost("the trials differ")


def _rows(content: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [(row["backend"], row["precision"], row["batch"]) for row in content["rows"]]


# Every stage in its order, and what holds its result against that of the undisturbed pass.
STAGES: dict[str, Callable[[Path, Path], None]] = {
    "prepare": _same_below("data/prepared"),
    "anchors": _same_below("outputs/anchors"),
    "evolve": _same_trials,
    "train": lambda whole, home: same(whole / f"outputs/train/{MODEL}", home / f"outputs/train/{MODEL}", *BITS),
    "evaluate": _same_below(f"outputs/evaluate/{MODEL}", "*.json"),
    "export": _same_below(f"outputs/export/{MODEL}", "*.onnx"),
    "benchmark": _same_facts(f"outputs/benchmark/{MODEL}/benchmark.json", _rows),
    "register": _same_facts(f"outputs/register/{MODEL}.json", lambda content: content["version"]),
    "promote": _same_facts(f"outputs/promote/{MODEL}.json", lambda content: content["champion_after"]),
    "compare": _same_facts("outputs/compare/comparison.json", lambda content: content["models"][MODEL]["AP"]),
}
