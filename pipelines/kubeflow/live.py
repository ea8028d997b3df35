"""A pipeline run while it runs: a live table on a terminal, one line per change elsewhere."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.table import Table

from pipelines.kubeflow.client import ENDED, Kubeflow
from yolo_core.errors import TryAgain

if TYPE_CHECKING:
    from kfp_server_api import V2beta1PipelineTaskDetail, V2beta1Run

KFP_INTERNAL = ("root", "-driver", "executor")  # endings of the tasks that KFP adds around each step
COLOURS = {"SUCCEEDED": "green", "FAILED": "red", "RUNNING": "cyan", "CANCELED": "yellow", "CANCELING": "yellow"}


@dataclass(frozen=True)
class Step:
    """One task of a run."""

    id: str
    name: str
    state: str
    seconds: float | None
    """How long it took, or has been running; None before its start."""

    error: str = ""


def steps(run: "V2beta1Run") -> list[Step]:
    """The steps of a run in the order of their start, without the tasks that KFP adds around each."""
    tasks: list[V2beta1PipelineTaskDetail] = (run.run_details and run.run_details.task_details) or []
    own = [task for task in tasks if not str(task.display_name).endswith(KFP_INTERNAL)]
    own.sort(key=lambda task: (task.start_time is None, task.start_time or task.create_time))
    return [_step(task) for task in own]


def follow(
    server: Kubeflow, run_id: str, *, limit: float, console: Console, poll: float = 3, heartbeat: float = 60
) -> "V2beta1Run":
    """Show the run until it ends and return its final state. limit, poll, heartbeat: seconds.

    Raises TryAgain when it has not ended within `limit`; the run itself continues.
    """
    started = time.monotonic()
    with _view(console, heartbeat) as view:
        while True:
            run = server.run(run_id)
            view.show(run)
            if run.state in ENDED:
                return run
            if time.monotonic() - started > limit:
                raise TryAgain(f"run {run_id}: {run.state} after {timedelta(seconds=round(limit))}; it continues")
            time.sleep(poll)


def table(run: "V2beta1Run") -> Table:
    """One row per step."""
    content = Table(title=f"{run.display_name}: {_coloured(run.state or 'PENDING')}", title_justify="left")
    for column in ("step", "state", "time", "error"):
        content.add_column(column, justify="right" if column == "time" else "left")
    for step in steps(run):
        content.add_row(step.name, _coloured(step.state), _duration(step.seconds), step.error)
    return content


def overview(runs: "Iterable[V2beta1Run]") -> Table:
    """One row per run."""
    content = Table()
    for column in ("run", "name", "state", "started", "time"):
        content.add_column(column)
    for run in runs:
        started = f"{run.created_at:%Y-%m-%d %H:%M}" if run.created_at else ""
        end = run.finished_at if run.state in ENDED else datetime.now(UTC)
        seconds = (end - run.created_at).total_seconds() if run.created_at and end else None
        content.add_row(run.run_id, run.display_name, _coloured(run.state or "PENDING"), started, _duration(seconds))
    return content


class _LineView:
    """One line per change of a step, and a heartbeat while nothing changes."""

    def __init__(self, console: Console, heartbeat: float) -> None:
        self._console, self._heartbeat = console, heartbeat
        self._states: dict[str, str] = {}  # by step id
        self._printed_at = time.monotonic()

    def __enter__(self) -> "_LineView":
        return self

    def __exit__(self, *_: object) -> None: ...

    def show(self, run: "V2beta1Run") -> None:
        now = [Step("", "run", run.state or "PENDING", None), *steps(run)]
        for step in now:
            if self._states.get(step.id) != step.state:
                self._print(f"{step.name}: {step.state}{f': {step.error}' if step.error else ''}")
                self._states[step.id] = step.state
        if time.monotonic() - self._printed_at >= self._heartbeat:
            self._print("still at " + ", ".join(step.name for step in now if step.state == "RUNNING"))

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        self._printed_at = time.monotonic()


class _TableView:
    """The table of the run, redrawn in place."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False)

    def __enter__(self) -> "_TableView":
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, run: "V2beta1Run") -> None:
        self._live.update(table(run), refresh=True)


def _view(console: Console, heartbeat: float) -> _TableView | _LineView:
    return _TableView(console) if console.is_terminal else _LineView(console, heartbeat)


def _step(task: "V2beta1PipelineTaskDetail") -> Step:
    error = " ".join((task.error.message or "").split())[:200] if task.error else ""
    return Step(str(task.task_id), str(task.display_name), task.state or "PENDING", _seconds(task), error)


def _seconds(task: "V2beta1PipelineTaskDetail") -> float | None:
    if not task.start_time:
        return None
    end = task.end_time if task.end_time and task.end_time >= task.start_time else datetime.now(UTC)
    return (end - task.start_time).total_seconds()


def _duration(seconds: float | None) -> str:
    return "" if seconds is None else str(timedelta(seconds=round(seconds)))


def _coloured(state: str) -> str:
    return f"[{COLOURS[state]}]{state}[/]" if state in COLOURS else state
