"""Progress of long work on standard error: a bar on a terminal, an occasional plain line when piped."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from yolo_core.progress import Progress

T = TypeVar("T")
LINE_EVERY = 10.0  # seconds between plain lines


def on_stderr() -> Progress:
    """The reporter that suits standard error."""
    return _bars() if sys.stderr.isatty() else _lines


def _bars() -> Progress:
    rate = TextColumn("{task.fields[rate]}")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
    # What is printed meanwhile appears above the bars, but a standard output that is no terminal stays what it is.
    bars = Bars(*columns, console=Console(stderr=True), transient=True, redirect_stdout=sys.stdout.isatty())

    def track(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        task = bars.add_task(label, total=_total(items, total), rate="")
        bars.start()
        try:
            for item in items:
                yield item
                speed = bars.tasks[bars.task_ids.index(task)].speed
                bars.update(task, advance=1, rate=f"{speed:.1f}/s" if speed else "")
        finally:
            bars.remove_task(task)
            if not bars.task_ids:  # the outermost loop has ended
                bars.stop()

    return track


def _lines(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    total = _total(items, total)
    start = last = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last >= LINE_EVERY:
            last = now
            print(_line(label, done, total, now - start), file=sys.stderr, flush=True)


def _line(label: str, done: int, total: int | None, seconds: float) -> str:
    rate = done / seconds
    if total is None:
        return f"{label}: {done}, {rate:.1f}/s"
    return f"{label}: {done}/{total}, {rate:.1f}/s, {(total - done) / rate:.0f} s left"


def _total(items: Iterable[object], total: int | None) -> int | None:
    if total is None and hasattr(items, "__len__"):
        return len(items)  # pyright: ignore[reportArgumentType]
    return total
