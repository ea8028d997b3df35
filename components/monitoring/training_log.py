"""The log of a training on standard output: a line per epoch, as text or as JSON.

The command itself prints it, wherever the workers run.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from yolo_core.train import EpochReport

FORMAT_VARIABLE = "SCALED_YOLOV4_LOG_FORMAT"  # the default of --log-format, for DVC and Kubeflow
Format = Literal["text", "json"]
GIB = 1 << 30


class TrainingLog(Protocol):
    """Receives what a training reports."""

    def epoch(self, report: EpochReport) -> None:
        """Report an epoch that has just ended."""
        ...

    def note(self, message: str) -> None:
        """Report something else, in one line."""
        ...

    def hint(self, message: str) -> None:
        """Report a likely mistake, in one line."""
        ...

    def end(self, result: Mapping[str, object], line: str) -> None:
        """Report the main figures of the finished training. line: the same as text."""
        ...


class Silent:
    """Discards everything."""

    def epoch(self, report: EpochReport) -> None: ...

    def note(self, message: str) -> None: ...

    def hint(self, message: str) -> None: ...

    def end(self, result: Mapping[str, object], line: str) -> None: ...


SILENT: TrainingLog = Silent()


def on_stdout(form: Format, model: str) -> TrainingLog:
    """The log of a training of `model`, on standard output."""
    return _Json(model) if form == "json" else _Text(model)


class _Text:
    """Text for people."""

    def __init__(self, model: str) -> None:
        self._model = model

    def epoch(self, report: EpochReport) -> None:
        print(f"{self._model} {epoch_line(report)}", flush=True)
        for message in report.hints:
            self.hint(message)

    def note(self, message: str) -> None:
        print(f"{self._model}: {message}", flush=True)

    def hint(self, message: str) -> None:
        self.note(f"hint: {message}")

    def end(self, result: Mapping[str, object], line: str) -> None:
        print(line, flush=True)


class _Json:
    """One JSON object per line and nothing else on standard output; "event" names its kind."""

    def __init__(self, model: str) -> None:
        self._model = model

    def epoch(self, report: EpochReport) -> None:
        self._write("epoch", epoch_record(report))
        for message in report.hints:
            self.hint(message)

    def note(self, message: str) -> None:
        self._write("note", {"message": message})

    def hint(self, message: str) -> None:
        self._write("hint", {"message": message})

    def end(self, result: Mapping[str, object], line: str) -> None:
        self._write("end", result)
        print(line, file=sys.stderr, flush=True)

    def _write(self, event: str, content: Mapping[str, object]) -> None:
        print(json.dumps({"event": event, "model": self._model, **content}, allow_nan=False), flush=True)


def epoch_line(report: EpochReport) -> str:
    """An epoch in one line; figures of the same training align."""
    row, best = report.row, report.best
    parts = [
        f"{row['epoch']:>{len(str(report.epochs))}}/{report.epochs}",
        *(f"{name} {row[name]:.4f}" for name in ("box", "obj", "cls")),
        *(f"{name} {_figure(row[name])} {_signed(change)}" for name, change in changes(report).items()),
    ]
    if best:
        parts.append(f"best {_figure(best['AP'])} in {best['epoch']}")
    if report.images_per_second is not None:
        parts.append(f"{report.images_per_second:.3g} img/s")
    parts.append(f"{report.memory_bytes / GIB:.1f} GiB")
    if report.seconds_left is not None:
        parts.append(f"{_duration(report.seconds_left)} left")
    return "  ".join(parts)


def epoch_record(report: EpochReport) -> dict[str, object]:
    """An epoch for machines: the row of the curves and all else in `epoch_line`, unrounded."""
    best = report.best
    return {
        **report.row,
        "epochs": report.epochs,
        "steps": report.steps,
        **{f"{name}_change": change for name, change in changes(report).items()},
        "best": dict(best) if best else None,
        "images_per_second": report.images_per_second,
        "memory_bytes": report.memory_bytes,
        "seconds_left": report.seconds_left,
    }


def changes(report: EpochReport) -> dict[str, float | None]:
    """By how much AP and AP50 differ from the evaluation before; None where one of the two is missing."""
    found: dict[str, float | None] = {}
    for name in ("AP", "AP50"):
        now, before = report.row[name], report.before and report.before[name]
        found[name] = None if now is None or before is None else now - before
    return found


def _figure(value: float | None) -> str:
    return "  -  " if value is None else f"{value:.3f}"


def _signed(change: float | None) -> str:
    return " " * 8 if change is None else f"({round(change, 3) + 0.0:+.3f})"


def _duration(seconds: float) -> str:
    """Such as 0:45, 12:05 or 1:02:30: minutes and seconds, with hours in front."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
