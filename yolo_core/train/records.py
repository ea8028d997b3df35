"""What a training reports while it runs and returns at its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict

from yolo_core.models import Detector
from yolo_core.train.transfer import Transfer


class EpochRow(TypedDict):
    """One row of the learning curves. Losses are means over the epoch's images; AP is None without an evaluation."""

    epoch: int
    step: int
    lr: float
    box: float
    obj: float
    cls: float
    loss: float
    AP: float | None
    AP50: float | None


class Best(TypedDict):
    """The epoch whose average weights are the result, and their figures."""

    epoch: int
    fitness: float
    """0 where there is no ground truth."""
    AP: float | None
    AP50: float | None


@dataclass
class Pace:
    """What happened between two looks at the losses, on this worker unless stated otherwise."""

    images: int = 0
    """Images trained on, over all workers."""
    seconds: float = 0.0
    """Time in steps, in waiting for their batches and for the device."""
    waiting: float = 0.0
    """The part of it spent waiting for batches."""


@dataclass(frozen=True)
class EpochReport:
    """An epoch that has just ended, as reported to whoever watches. Times and memory differ from run to run."""

    row: EpochRow
    epochs: int
    """Epochs of the whole training."""
    steps: int
    """Its steps."""
    best: Best | None
    """The best epoch so far, this one included; None before the first evaluation."""
    before: EpochRow | None
    """The last epoch before this one that has an AP."""
    images_per_second: float | None
    """Training speed in this epoch over all workers, evaluations left out; None if this process made no step in it."""
    seconds_left: float | None
    """At the pace of this process so far, evaluations included, or to the time limit; None before its first step."""
    memory_bytes: int
    """Peak memory of the main worker: on the GPU if it has one, else of its process."""
    hints: tuple[str, ...] = ()
    """Likely mistakes that this epoch reveals, one line each; see `yolo_core.train.hints`."""


EndedBy = Literal["epochs", "patience", "max_minutes", "caller"]
"""Why a training ended: after all its epochs, by a limit of its configuration, or because `on_epoch` said so."""
OnLog = Callable[[int, dict[str, float], Pace], None]
OnEpoch = Callable[[EpochRow], bool | None]
OnReport = Callable[[EpochReport], None]
OnSave = Callable[[Path], None]
ShouldStop = Callable[[], bool]


@dataclass(frozen=True)
class Callbacks:
    """Callbacks that `fit` calls while it trains; see there."""

    on_log: OnLog | None = None
    on_epoch: OnEpoch | None = None
    on_report: OnReport | None = None
    on_save: OnSave | None = None
    should_stop: ShouldStop = lambda: False


@dataclass(frozen=True)
class TrainResult:
    """A finished training."""

    model: Detector
    """The average weights of the best epoch, on the CPU, in evaluation mode."""
    rows: list[EpochRow]
    """The learning curves, a row per epoch."""
    best: Best
    """The epoch that `model` comes from."""
    steps: int
    """Steps done in all, by every process that worked on it."""
    ended_by: EndedBy
    images_per_second: float
    """Training speed over all workers, evaluations left out."""
    seconds: float
    """Seconds of this process."""
    resumed_at: int
    """The step this process resumed from, 0 from the start."""
    device: str
    """The device in words."""
    dtype: str
    """Type of the forward pass, such as "float32"."""
    transfer: Transfer | None
    """What was taken over from other weights; None without any."""

    @property
    def ended_early(self) -> bool:
        """Whether it ended before its last epoch."""
        return self.ended_by != "epochs"
