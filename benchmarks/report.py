"""The report of a row: a table on the terminal, and a JSON line that is also kept in `benchmarks/results.jsonl`."""

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal, NotRequired, TypedDict

from rich.console import Console
from rich.table import Table

from benchmarks.contender import Figures
from benchmarks.race import Result
from yolo_core.device import describe, pick_device

RESULTS = Path(__file__).parent / "results.jsonl"
PACKAGES = ("torch", "numpy", "opencv-python-headless", "numba", "hotcoco", "onnxruntime", "openvino", "ray", "mlflow")


@dataclass(frozen=True)
class Goal:
    """A goal for one of our figures."""

    figure: str
    unit: str
    better: Literal["more", "less"]
    """Whether more or less of the figure is better."""

    value: float | None = None
    """The least (or most) that the figure may be."""

    ratio: float | None = None
    """How many times better than the peer it is to be."""

    against: str | None = None
    """The peer compared with; None: the best one."""


class JudgedGoal(TypedDict):
    """A goal as its line holds it: the fields of `Goal`, and what became of it."""

    figure: str
    unit: str
    better: Literal["more", "less"]
    value: float | None
    ratio: float | None
    against: str | None
    """The peer compared with; None if none was measured."""

    ours: float
    """Our figure, in `unit`."""

    times: float | None
    """The ratio to the peer; over 1: ours is better."""

    reached: bool | None
    """Whether the goal is reached; None if there is no goal, only a figure."""


class NotRun(TypedDict):
    """A peer without figures."""

    missing: str
    """Why it did not run."""


class Line(TypedDict):
    """A row's line in results.jsonl; further entries are facts, such as sizes."""

    row: str
    command: str
    """What measured it."""

    contender: NotRequired[str]
    """What of ours was measured, where that needs a name."""

    ours: Figures
    peers: dict[str, Figures | NotRun]
    """By name."""

    goals: list[JudgedGoal]
    machine: dict[str, str | int]
    """Device, cores and package versions."""


def publish(row: str, results: Sequence[Result], goals: Sequence[Goal], **facts: object) -> dict[str, object]:
    """Print the table and JSON line of one row, and keep the line. facts: further entries, such as sizes."""
    ours, *peers = results
    line = {
        "row": row,
        "command": f"python -m {_module()}",
        **facts,
        "ours": ours.figures,
        "peers": {peer.name: peer.figures or {"missing": peer.missing} for peer in peers},
        "goals": [_judged(goal, ours, peers) for goal in goals],
        "machine": machine(),
    }
    Console().print(_table(row, results))
    print(json.dumps(line), flush=True)
    _keep(row, line)
    return line


def _judged(goal: Goal, ours: Result, peers: Sequence[Result]) -> JudgedGoal:
    """The goal, the ratio to its peer (over 1: ours is better), and whether it is reached."""
    mine = ours.figures[goal.figure]
    others = {
        peer.name: peer.figures[goal.figure]
        for peer in peers
        if goal.figure in peer.figures and goal.against in (None, peer.name)
    }
    more = goal.better == "more"
    rival = (max if more else min)(others, key=lambda name: others[name]) if others else None
    ratio = None if rival is None else mine / others[rival] if more else others[rival] / mine
    bars = [] if goal.value is None else [mine >= goal.value if more else mine <= goal.value]
    if goal.ratio is not None:
        bars.append(ratio is not None and ratio >= goal.ratio)
    return {
        "figure": goal.figure,
        "unit": goal.unit,
        "better": goal.better,
        "value": goal.value,
        "ratio": goal.ratio,
        "against": rival,
        "ours": mine,
        "times": ratio,
        "reached": all(bars) if bars else None,
    }


def machine() -> dict[str, str | int]:
    """Device, cores and package versions."""
    device = pick_device("auto")
    return {
        "device": describe(device),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        **{package: version for package in PACKAGES if (version := _version(package))},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _module() -> str:
    """The running row's module, with its arguments."""
    spec = sys.modules["__main__"].__spec__
    return " ".join([spec.name if spec else "benchmarks", *sys.argv[1:]])


def _table(row: str, results: Sequence[Result]) -> Table:
    names = list(results[0].figures)
    table = Table("", *names, title=row, title_justify="left")
    for result in results:
        cells = [f"{result.figures[name]:.4g}" if name in result.figures else "-" for name in names]
        table.add_row(result.name, *(cells if result.figures else [f"not run: {result.missing}"]))
    return table


def _keep(row: str, line: Mapping[str, object]) -> None:
    """Keep the newest line of each row, rows in alphabetical order."""
    known = [json.loads(text) for text in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    lines = {kept["row"]: kept for kept in known} | {row: line}
    RESULTS.write_text("".join(json.dumps(lines[row]) + "\n" for row in sorted(lines)))
