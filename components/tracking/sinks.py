"""Who else receives the metrics of a training as it records them: TensorBoard, and Weights & Biases.

Each is told what the journal of the run holds, from its first entry on, so that a training that was killed and resumed
has whole curves. MLflow stays the record: an error of one of these ends its curves, not the training.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from components.workspace import WORK
from yolo_core.errors import UserError, without_credentials

if TYPE_CHECKING:
    from components.tracking.journal import Entry, Journal

# The defaults of the options, for DVC and Kubeflow.
TENSORBOARD_VARIABLE = "SCALED_YOLOV4_TENSORBOARD"
WANDB_VARIABLE = "SCALED_YOLOV4_WANDB"

log = logging.getLogger(__name__)


class Metric(NamedTuple):
    """A metric as the journal holds it."""

    name: str
    value: float
    time_ms: int
    """Since the epoch."""
    step: int


@dataclass(frozen=True)
class Sinks:
    """Where the metrics of a training go besides MLflow."""

    tensorboard: Path | None = None
    """Folder for `tensorboard --logdir`; each training has a folder of its own in it."""
    wandb: str | None = None
    """Project at Weights & Biases."""

    def check(self) -> None:
        """Raise UserError for what cannot be written to, before work begins."""
        if self.wandb is not None:
            _check_wandb()

    @contextlib.contextmanager
    def opened(self, journal: Journal, settings: Mapping[str, object]) -> Iterator[Callable[[Entry], None]]:
        """What writes an entry to each of them, after the entries that the journal already holds.

        settings: shown by Weights & Biases as the configuration of the run.
        """
        began = time.strftime("%Y%m%d-%H%M%S", time.gmtime(journal.header["began"] / 1000))
        name = f"{journal.header['model']}-{began}"
        record = journal.header["record"]
        sinks: list[_Guarded] = []
        if folder := self.tensorboard:
            sinks.append(_Guarded("TensorBoard", lambda: _TensorBoard(folder / name)))
        if project := self.wandb:
            sinks.append(_Guarded("Weights & Biases", lambda: _WeightsAndBiases(project, record, name, settings)))

        def write(entry: Entry) -> None:
            for sink in sinks:
                sink.write(entry)

        failed = True
        try:
            for entry in journal.history:
                write(entry)
            yield write
            failed = False
        finally:
            for sink in sinks:
                sink.close(failed)


NO_SINKS = Sinks()


class _Sink(Protocol):
    def write(self, metrics: list[Metric]) -> None: ...

    def close(self, failed: bool) -> None: ...


class _Guarded:
    """A sink that its first error ends, with a line in the log."""

    def __init__(self, name: str, opened: Callable[[], _Sink]) -> None:
        self._name, self._sink = name, None
        with self._reporting():
            self._sink = opened()

    def write(self, entry: Entry) -> None:
        if self._sink and entry["op"] == "metrics":
            with self._reporting():
                self._sink.write([Metric(*values) for values in entry["metrics"]])

    def close(self, failed: bool) -> None:
        if self._sink:
            with self._reporting():
                self._sink.close(failed)

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._sink = None
            log.warning(
                "%s: %s; it receives nothing more of this training", self._name, without_credentials(str(error))
            )


class _TensorBoard:
    """Event files in `folder`, written anew: those of a killed process lack the entries that were not flushed."""

    def __init__(self, folder: Path) -> None:
        from tensorboardX import SummaryWriter

        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        self._writer = SummaryWriter(str(folder))

    def write(self, metrics: list[Metric]) -> None:
        for metric in metrics:
            self._writer.add_scalar(metric.name, metric.value, metric.step, walltime=metric.time_ms / 1000)

    def close(self, failed: bool) -> None:
        self._writer.close()


class _WeightsAndBiases:
    """A run whose id is that of the journal, so that a later process continues it."""

    def __init__(self, project: str, record: str, name: str, settings: Mapping[str, object]) -> None:
        import wandb

        self._run = wandb.init(
            project=project,
            id=record,
            name=name,
            resume="allow",
            config={key: _shown(value) for key, value in settings.items()},
            dir=os.environ.get("WANDB_DIR", WORK),
            settings=wandb.Settings(silent=True, console="off"),
        )

    def write(self, metrics: list[Metric]) -> None:
        for step, group in groupby(metrics, key=lambda metric: metric.step):
            if step >= self._run.step:  # what it had received before a kill; it takes steps in order only
                self._run.log({metric.name: metric.value for metric in group}, step=step)

    def close(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


def _shown(value: object) -> object:
    return without_credentials(value) if isinstance(value, str) else value


def _check_wandb() -> None:
    try:
        import wandb
    except ModuleNotFoundError:
        raise UserError("Weights & Biases is not installed; run: pip install 'scaled-yolov4[wandb]'") from None
    if os.environ.get("WANDB_MODE", "online") != "online":
        return
    with contextlib.suppress(wandb.Error):
        if wandb.login(prompt=False, verify=False):
            return
    raise UserError("Weights & Biases: no API key; run `wandb login`, or set WANDB_API_KEY or WANDB_MODE=offline")
