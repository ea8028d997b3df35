"""Start-up and overhead: seconds before the work begins. `python -m benchmarks.startup`

The quickstart runs in a copy of this checkout, from nothing to the first step of `train`.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks import peers
from benchmarks.contender import Contender, Figures, Missing, Round
from benchmarks.race import race
from benchmarks.report import Goal, publish
from components import telemetry

ROOT = Path(__file__).parents[1]
TIMES = 3  # that a short command is timed
AT_A_TIME = 2  # trials, as params.yaml has it
# Importing ultralytics looks up the version of torchvision, which may be missing.
TORCHVISION = """
import importlib.metadata as m
version = m.version
m.version = lambda name: "0.0" if name == "torchvision" else version(name)
"""
MODULES = (
    "components.cli.main",
    "components.stages.prepare",
    "components.stages.evolve",
    "components.evolution.search",
    "components.stages.train",
)


def main() -> None:
    telemetry.turn_off()
    results = race(
        [
            Contender("ours", "benchmarks.startup:ours", threads=2),
            Contender("ultralytics", "benchmarks.startup:ultralytics", path=peers.path()),
        ],
        rounds=1,
        warmup=0,
    )
    goals = [
        Goal("help_s", "s", "less", 0.5),
        Goal("noop_stage_s", "s", "less", 2.0),
        Goal("full_ledger_s", "s", "less", 2.0),
        Goal("first_step_s", "s", "less", 60.0),
        Goal("trial_overhead_s", "s", "less", 1.0),
    ]
    publish("startup", results, goals, threads=2)


def ultralytics() -> Round:
    """The first import of its command line."""

    def once() -> Figures:
        return {"help_s": _median_import("ultralytics.cfg", TORCHVISION)}

    peers.require(peers.SITE)
    once()  # raises Missing if it cannot be imported
    return once


def ours() -> Round:
    return _measure


def _measure() -> Figures:
    with tempfile.TemporaryDirectory(prefix="startup-") as folder:
        checkout = Path(folder) / "copy"
        _copy_checkout(checkout)
        figures = {"help_s": median(_seconds(checkout, "scaled-yolov4", "--help") for _ in range(TIMES))}
        began = time.time()
        _call(checkout, "dvc", "repro", "evolve")
        figures["first_step_s"] = _first_step(checkout) - began
        figures["trial_overhead_s"] = _trial_overhead(checkout)
        for number, stage in enumerate(("prepare", "anchors", "evolve")):
            seconds = median(_seconds(checkout, "dvc", "repro", "--single-item", stage) for _ in range(TIMES))
            figures["noop_stage_s"] = max(figures["noop_stage_s"], seconds) if number else seconds
        figures["full_ledger_s"] = median(_seconds(checkout, "scaled-yolov4", "evolve") for _ in range(TIMES))
        figures["train_first_step_s"] = _until_first_step(checkout)
        figures["train_first_step_in_ray_worker_s"] = _until_first_step(checkout, RAY_ADDRESS="local")
        return figures | {f"import {module}_s": _median_import(module) for module in MODULES}


def _copy_checkout(checkout: Path) -> None:
    """The files of this checkout that git tracks or would add, without outputs of the stages."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file() and not (ROOT / name).is_symlink() and name != "dvc.lock":
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, checkout / name)
    for command in (["git", "init", "--quiet"], ["git", "add", "--all"]):
        subprocess.run(command, cwd=checkout, check=True)


def _environment(checkout: Path) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    modules = f"{checkout / 'benchmarks/first_step'}{os.pathsep}{checkout}"
    apart = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")}
    return apart | {"PATH": path, "PYTHONPATH": modules, "FIRST_STEP": str(_mark(checkout)), "DVC_NO_ANALYTICS": "true"}


def _mark(checkout: Path) -> Path:
    return checkout.with_name("first_step")


def _first_step(checkout: Path) -> float:
    return float(_mark(checkout).read_text())


def _call(checkout: Path, *command: str) -> None:
    done = subprocess.run(command, cwd=checkout, env=_environment(checkout), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")


def _seconds(checkout: Path, *command: str) -> float:
    began = time.perf_counter()
    _call(checkout, *command)
    return time.perf_counter() - began


def _until_first_step(checkout: Path, **more: str) -> float:
    """Seconds from the start of the stage `train` to the end of its first step; then the stage is stopped."""
    mark, began = _mark(checkout), time.time()
    mark.unlink(missing_ok=True)
    work = ["--work", str(checkout / f"work-{len(more)}")]
    stage = subprocess.Popen(
        ["scaled-yolov4", "train", *work], cwd=checkout, env=_environment(checkout) | more, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while not (mark.exists() and mark.read_text()):
            if stage.poll() is not None or time.time() - began > 120:
                raise RuntimeError("train: no step within 120 s")
            time.sleep(0.02)
    finally:
        os.killpg(stage.pid, signal.SIGTERM)
        try:
            stage.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(stage.pid, signal.SIGKILL)
            stage.wait()
    return _first_step(checkout) - began


def _trial_overhead(checkout: Path) -> float:
    """The longest pause of a worker between a trial being available and the start of its training."""
    lines = (checkout / "outputs/evolve/ledger.jsonl").read_text().splitlines()[1:]
    trials = {record["trial"]: record for record in map(json.loads, lines) if "trial" in record}
    pauses = []
    for number, record in trials.items():
        if number >= AT_A_TIME:  # it starts when all but the concurrent ones before it have ended
            ready = max(one["elapsed"] for other, one in trials.items() if other <= number - AT_A_TIME)
            pauses.append(record["elapsed"] - record["seconds"] - ready)
    return max(pauses)


def _median_import(module: str, before: str = "") -> float:
    """Seconds to import a module in a new process, without the interpreter's start and the code `before`."""
    code = f"{before}\nimport time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    seconds = []
    for _ in range(TIMES):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
        if done.returncode:
            raise Missing(done.stderr.strip().splitlines()[-1])
        seconds.append(float(done.stdout.split()[-1]))
    return median(seconds)


if __name__ == "__main__":
    main()
