"""What the workers of a training are given."""

import dataclasses
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from components.params import Params
from yolo_core.data.coco import CacheSettings
from yolo_core.train import OnReport, TrainConfig


@dataclass(frozen=True)
class Job:
    """A training, the same for every worker. Paths are absolute: workers have their own working folders."""

    params: Params
    config: TrainConfig
    data: Path
    folder: Path
    """Folder of the checkpoints, and of the results before they move out."""
    images: CacheSettings
    """How decoded images are cached."""
    addresses: dict[str, str] = dataclasses.field(default_factory=dict)
    """Where other nodes fetch paths that are local copies."""

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def results(self) -> Path:
        return self.folder / "results"


class RunRecord(Protocol):
    """Takes the figures of a training, towards a run of MLflow."""

    @property
    def run_id(self) -> str | None: ...

    def log(self, metrics: Mapping[str, float | None], step: int) -> None: ...


OpenRun = Callable[[], AbstractContextManager[RunRecord]]


@dataclass(frozen=True)
class WorkerContext:
    """What one worker needs besides its job."""

    open_run: OpenRun
    """Opens the run that the main worker records."""
    should_stop: Callable[[], bool]
    send_folder: Callable[[Path], None] | None = None
    """Sends a finished checkpoint or the results to the driver's node; None where that is this node."""
    on_report: OnReport | None = None
    """Takes the main worker's report on each epoch."""
    queue_seconds: float | None = None
    """How long the training waited for its workers; None where it did not."""
