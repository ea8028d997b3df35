"""A run of the pipeline as it goes: a live table at a terminal, a line for each change elsewhere."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from pipelines.kubeflow.client import ENDED, Kubeflow
from yolo_core.errors import TryAgain

AROUND = ("root", "-driver", "executor")
COLOURS = {"SUCCEEDED": "green", "FAILED": "red", "RUNNING": "cyan", "CANCELED": "yellow", "CANCELING": "yellow"}


@dataclass(frozen=True)
class Step:
    """One task of a run: its name, its state, how long it took or has been at work, and what went wrong."""

    id: str
    name: str
    state: str
    seconds: float | None
    error: str = ""


def steps(run: Any) -> list[Step]:
    """The tasks of a run in the order of their start; the pods that KFP puts around each are left out."""
    details = (run.run_details and run.run_details.task_details) or []
    own = [task for task in details if not task.display_name.endswith(AROUND)]
    own.sort(key=lambda task: (task.start_time is None, task.start_time or task.create_time))
    return [
        Step(task.task_id, task.display_name, task.state or "PENDING", _seconds(task), _error(task)) for task in own
    ]


def follow(
    server: Kubeflow, run_id: str, *, limit: float, console: Console, poll: float = 3, heartbeat: float = 60
) -> Any:
    """Show the run until it ends, and return it as it is then. limit, poll, heartbeat: seconds.

    Raises TryAgain when it has not ended within `limit`; the run goes on then.
    """
    began = time.monotonic()
    with _shown(console, heartbeat) as screen:
        while True:
            run = server.run(run_id)
            screen.show(run)
            if run.state in ENDED:
                return run
            if time.monotonic() - began > limit:
                raise TryAgain(f"run {run_id}: {run.state} after {timedelta(seconds=round(limit))}; it goes on")
            time.sleep(poll)


def table(run: Any) -> Table:
    content = Table(title=f"{run.display_name}: {_coloured(run.state or 'PENDING')}", title_justify="left")
    for column in ("step", "state", "time", "error"):
        content.add_column(column, justify="right" if column == "time" else "left")
    for step in steps(run):
        content.add_row(step.name, _coloured(step.state), _time(step.seconds), step.error)
    return content


def overview(runs: Iterable[Any]) -> Table:
    """A line a run."""
    content = Table()
    for column in ("run", "name", "state", "started", "time"):
        content.add_column(column)
    for run in runs:
        started = f"{run.created_at:%Y-%m-%d %H:%M}" if run.created_at else ""
        end = run.finished_at if run.state in ENDED else datetime.now(UTC)
        seconds = (end - run.created_at).total_seconds() if run.created_at and end else None
        content.add_row(run.run_id, run.display_name, _coloured(run.state or "PENDING"), started, _time(seconds))
    return content


class _Lines:
    """A line for each change of a step, and one at times while nothing changes."""

    def __init__(self, console: Console, heartbeat: float) -> None:
        self.console, self.heartbeat = console, heartbeat
        self.seen: dict[str, str] = {}
        self.spoke = time.monotonic()

    def __enter__(self) -> "_Lines":
        return self

    def __exit__(self, *_: object) -> None: ...

    def show(self, run: Any) -> None:
        now = [Step("", "run", run.state or "PENDING", None), *steps(run)]
        for step in now:
            if self.seen.get(step.id) != step.state:
                self._say(f"{step.name}: {step.state}{f': {step.error}' if step.error else ''}")
                self.seen[step.id] = step.state
        if time.monotonic() - self.spoke >= self.heartbeat:
            self._say("still at " + ", ".join(step.name for step in now if step.state == "RUNNING"))

    def _say(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)
        self.spoke = time.monotonic()


class _Screen:
    def __init__(self, console: Console) -> None:
        self.live = Live(console=console, auto_refresh=False)

    def __enter__(self) -> "_Screen":
        self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    def show(self, run: Any) -> None:
        self.live.update(table(run), refresh=True)


def _shown(console: Console, heartbeat: float) -> _Screen | _Lines:
    return _Screen(console) if console.is_terminal else _Lines(console, heartbeat)


def _seconds(task: Any) -> float | None:
    if not task.start_time:
        return None
    end = task.end_time if task.end_time and task.end_time >= task.start_time else datetime.now(UTC)
    return (end - task.start_time).total_seconds()


def _error(task: Any) -> str:
    return " ".join((task.error.message or "").split())[:200] if task.error else ""


def _time(seconds: float | None) -> str:
    return "" if seconds is None else str(timedelta(seconds=round(seconds)))


def _coloured(state: str) -> str:
    return f"[{COLOURS[state]}]{state}[/]" if state in COLOURS else state
