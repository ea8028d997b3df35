"""What workers of a training are given."""

import contextlib
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.params import Params
from yolo_core.data.coco import CacheSettings
from yolo_core.train import TrainConfig


@dataclass(frozen=True)
class Job:
    """What every worker is given. Paths are absolute: workers have working folders of their own.

    origins: the addresses in the object store of paths that are working copies.
    """

    params: Params
    config: TrainConfig
    data: Path
    folder: Path  # checkpoints, and the results before they move out
    images: CacheSettings
    origins: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def results(self) -> Path:
        return self.folder / "results"


@dataclass(frozen=True)
class Surroundings:
    """What a worker needs beside its job. record: opens the run of the main worker; keep: sends its folders home.

    queued: seconds that the training waited for its workers.
    """

    record: Callable[[], contextlib.AbstractContextManager[Any]]
    should_stop: Callable[[], bool]
    keep: Callable[[Path], None] | None = None
    queued: float | None = None
