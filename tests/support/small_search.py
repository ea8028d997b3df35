"""A hyperparameter search that takes a minute: four trials of a small detector on a few pictures of digits."""

import json
import subprocess
from pathlib import Path

import parameter_reads
from small_training import ROOT
from waiting import until

from components.evolution.ledger import Record
from components.parameter_file import load
from components.params import Params
from components.stages import anchors, evolve, prepare

MODEL = "yolov4-tiny"
TINY = [
    "prepare.digits.train_images=12",
    "prepare.digits.val_images=6",
    "prepare.digits.image_size=64",
    "anchors.generations=20",
    "train.size=64",
    "train.batch=4",
    "train.nominal_batch=4",
    "train.width=0.25",
    "evolve.train_images=8",
    "evolve.val_images=4",
    "evolve.epochs=1",
    "evolve.trials=4",
    "evolve.concurrent=2",
    "evolve.minutes=10000",
]

HALVING = ["evolve.epochs=4", "evolve.halving={epochs: [1, 2], keep: 0.5}"]
SEARCH = [*HALVING, "evolve.cpus_per_trial=0.5"]


def params(*overrides: str) -> Params:
    return load(ROOT / "params.yaml", [*TINY, *overrides])


def prepared(folder: Path) -> Path:
    """Put the dataset (data) and the anchors there."""
    prepare.run(params(), out=folder / "data")
    anchors.run(params(), data=folder / "data", out=folder / "anchors")
    return folder


def run(folder: Path, prepared: Path, *overrides: str) -> dict:
    paths = {"data": prepared / "data", "anchors": prepared / "anchors", "out": folder / "out", "work": folder / "work"}
    return parameter_reads.run(evolve, params(*overrides), **paths)


def records(path: Path) -> dict[int, Record]:
    lines = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    return {line["trial"]: Record(**line) for line in lines if "trial" in line}


def results(path: Path) -> dict[int, tuple]:
    """Each trial of a ledger, except for times."""
    return {
        trial: (r.parent, r.hyp, r.fitness, r.AP, r.AP50, r.reason, r.rungs, r.stopped_at)
        for trial, r in records(path).items()
    }


def words(folder: Path, prepared: Path, *overrides: str) -> list[str]:
    """The same as command-line arguments."""
    paths = {"data": prepared / "data", "anchors": prepared / "anchors", "out": folder / "out", "work": folder / "work"}
    options = [*(f"--{k}={v}" for k, v in paths.items()), f"--params={ROOT / 'params.yaml'}"]
    return ["evolve", *options, *(f"-S{change}" for change in (*TINY, *overrides))]


def wait_for_a_trial(driver: subprocess.Popen, work: Path) -> Path:
    """Wait until a search has a finished trial; returns its ledger."""

    def with_a_trial() -> list[Path]:
        return [path for path in work.glob("evolve/*/ledger.jsonl") if path.read_bytes().count(b"\n") > 1]

    return until(with_a_trial, "a finished trial", driver)[0]
