"""Drills of all stages in order: SIGTERM in each of them, and a retraining that is requested twice."""

import json
import os
import subprocess
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from small_search import MODEL, TINY, results
from small_training import ROOT

from components.tracking import connection
from tests.drills.grounds import LIMIT_S, Grounds, environment, same, stage, started, wait
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
# Of a stage's CPU time, after which it gets SIGTERM; if it ended before, the next: the time varies with the load.
PARTS = (0.7, 0.5, 0.3)
PREEMPTED = {"train": 3}  # the exit code after SIGTERM of stages that have their own


def preempted(grounds: Grounds) -> Found:
    """A pass in which every stage is terminated once gives the same results as an undisturbed pass."""
    whole, worked = undisturbed(grounds)
    home, costs, ends = _home(grounds, "preempted"), {}, []
    with _registry(home):
        for name in STAGES:
            code = _terminated(home, name, worked[name])
            ends.append(f"{name} {code}")
            began = time.monotonic()
            stage(home, name, *OPTIONS)
            costs[name] = time.monotonic() - began
            STAGES[name](whole, home)
        _check_versions(1)
    print(f"  exit codes: {', '.join(ends)}")
    slowest = max(costs, key=lambda name: costs[name])
    return Found(
        f"one stage of {len(STAGES)} each time; the longest, {slowest}, {costs[slowest]:.0f} s", costs[slowest]
    )


def retrained_twice(grounds: Grounds) -> Found:
    """Once these data have a champion, another retraining does nothing, even when two processes request it at once."""
    home, _ = undisturbed(grounds)
    with _registry(home):
        began = time.monotonic()
        with started(home, "retrain", *OPTIONS) as one, started(home, "retrain", *OPTIONS) as other:
            outputs = [process.communicate(timeout=LIMIT_S)[0] for process in (one, other)]
        seconds = time.monotonic() - began
        if one.returncode or other.returncode or not all("unchanged" in line for line in outputs):
            raise Lost(f"it was not refused: {outputs}, {_last_words(home)}")
        _check_versions(1)
    return Found("nothing: each finds the champion trained from the same data, parameters and code", seconds)


@cache
def undisturbed(grounds: Grounds) -> tuple[Path, dict[str, float]]:
    """Folder of an undisturbed pass, and the CPU seconds of each stage's process."""
    home, worked = _home(grounds, "undisturbed"), {}
    with _registry(home):
        stage(home, "prepare", *OPTIONS)
        output = stage(home, "retrain", "--no-train", *OPTIONS)
        if "no champion yet" not in output:
            raise Lost(f"the first retraining was not requested: {output}")
        for name in STAGES:
            worked[name] = _whole(home, name)
    return home, worked


def _home(grounds: Grounds, name: str) -> Path:
    home = grounds.folder / name
    home.mkdir()
    return home


def _registry(home: Path):
    return environment(MLFLOW_TRACKING_URI=f"sqlite:///{home}/mlflow.db")


def _whole(home: Path, name: str) -> float:
    """Run a stage to its end; returns the CPU seconds of its process."""
    with started(home, name, *OPTIONS) as process:
        wait(lambda: os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG), f"{name} ends")
        seconds = _worked(process)  # readable until the process is reaped
        if process.wait():
            raise Lost(f"`{name}` ended with exit code {process.returncode}: {_last_words(home)}")
    return seconds


def _last_words(home: Path) -> str:
    return (home / "log").read_text()[-2000:]


def _worked(process: subprocess.Popen) -> float:
    """CPU seconds so far, without those of its children."""
    user, system = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _terminated(home: Path, name: str, worked: float) -> int:
    """Start a stage and send it SIGTERM in the middle of its work; returns its exit code."""
    for part in PARTS:
        if code := _exit_code(home, name, part * worked):
            break
    else:
        raise Lost(f"{name} always finished before SIGTERM: nothing was tested")
    if code != PREEMPTED.get(name, code):
        raise Lost(f"SIGTERM ended {name} with exit code {code} instead of {PREEMPTED[name]}")
    return code


def _exit_code(home: Path, name: str, after_s: float) -> int:
    """Of a stage that gets SIGTERM after this much work; 0 if it finished before."""
    with started(home, name, *OPTIONS) as process:
        wait(lambda: _worked(process) > after_s or process.poll() is not None, f"{after_s:.0f} s of work")
        process.terminate()
        return process.wait(LIMIT_S)


def _check_versions(count: int) -> None:
    found = connection.connect().search_model_versions()
    if len(found) != count:
        raise Lost(f"{len(found)} versions are registered instead of {count}")


def _same_below(folder: str, pattern: str = "[!.]*") -> Callable[[Path, Path], None]:
    """Check that every file in the folder is the same."""

    def check(whole: Path, home: Path) -> None:
        paths = [path for path in (whole / folder).rglob(pattern) if path.is_file()]
        if not paths:
            raise Lost(f"{folder}: nothing to compare")
        same(whole, home, *(str(path.relative_to(whole)) for path in paths))

    return check


def _same_facts(file: str, facts: Callable[[Any], Any]) -> Callable[[Path, Path], None]:
    """Check that a file is the same apart from times."""

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


# Every stage in order, and how its result is compared with that of the undisturbed pass.
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
