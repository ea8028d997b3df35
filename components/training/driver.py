"""The driver's actor: what the workers of a training, on any node, report to and are controlled by.

Checkpoints, results and records are kept on the driver's node: no other node need see its folders, and a main worker
that starts on another node than the one before it is given the newest checkpoints. What a node needs of the object
store it fetches itself.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from components.monitoring.periodic import periodically
from components.monitoring.training_log import TrainingLog
from components.tracking import connection
from components.training.job import OpenRun, RunRecord
from yolo_core import atomic
from yolo_core.errors import Diverged, TryAgain, UserError
from yolo_core.train.checkpoint import SUMS

if TYPE_CHECKING:
    from ray.actor import ActorHandle

    from yolo_core.train import EpochReport

CHUNK_BYTES = 32 << 20
ANSWER_S = 600.0  # limit of one answer
POLL_S = 0.5

KINDS: dict[str, type[UserError]] = {kind.__name__: kind for kind in (UserError, TryAgain, Diverged)}


@dataclass(frozen=True)
class ReportedError:
    """A worker's UserError, as it travels."""

    kind: str
    """Its class, the narrowest of `KINDS` that fits."""
    message: str

    @classmethod
    def of(cls, error: UserError) -> ReportedError:
        return cls(next(name for name, kind in reversed(KINDS.items()) if isinstance(error, kind)), str(error))

    def exception(self) -> UserError:
        return KINDS[self.kind](self.message)


@dataclass(frozen=True)
class Status:
    """What a worker polls."""

    stop_requested: bool
    error: ReportedError | None
    """The first UserError of any worker."""


class DriverActor:
    """The actor's side. folder: of the training."""

    def __init__(self, folder: Path, open_run: OpenRun) -> None:
        self._folder, self._incoming = folder, folder / ".incoming"
        self._open_run, self._end = open_run, ExitStack()
        self._run: RunRecord | None = None
        self._stop_requested = False
        self._error: ReportedError | None = None
        self._reports: list[EpochReport] = []
        self._epochs_reported = 0
        self._workers_requested_at = time.monotonic()
        self._queue_seconds: float | None = None

    def status(self) -> Status:
        return Status(self._stop_requested, self._error)

    def request_stop(self) -> None:
        self._stop_requested = True

    def report_error(self, error: ReportedError) -> None:
        """Remember the first error that the user is to see."""
        self._error = self._error or error

    def queue_seconds(self) -> float:
        """Seconds from the driver's asking for workers until the first one called this; later calls change nothing."""
        if self._queue_seconds is None:
            self._queue_seconds = time.monotonic() - self._workers_requested_at
        return self._queue_seconds

    def open_run(self) -> str | None:
        """Open the run, once however often workers start; returns its id."""
        if self._run is None:
            self._run = self._end.enter_context(self._open_run())
        return self._run.run_id

    def log(self, metrics: Mapping[str, float | None], step: int) -> None:
        """Record metrics in the open run."""
        assert self._run
        self._run.log(metrics, step)

    def report(self, report: EpochReport) -> None:
        """Keep a report for the driver; epochs repeated by restarted workers are dropped."""
        if report.row["epoch"] > self._epochs_reported:
            self._epochs_reported = report.row["epoch"]
            self._reports.append(report)

    def take_reports(self) -> list[EpochReport]:
        """The reports since the last call."""
        taken, self._reports = self._reports, []
        return taken

    def end_run(self, failed: bool) -> None:
        with suppress(_Failed), self._end:
            if failed:
                raise _Failed

    def checksums(self) -> dict[str, str]:
        """The checksums of every checkpoint by its name."""
        found = sorted((self._folder / "checkpoints").glob(f"step-*/{SUMS}"))
        return {path.parent.name: path.read_text(encoding="utf-8") for path in found}

    def files(self, folder: str) -> list[str]:
        """The names of the files of a folder below that of the training."""
        return sorted(path.name for path in (self._folder / folder).iterdir())

    def read(self, folder: str, file: str, offset: int) -> bytes:
        """A part of a file from `offset` on; nothing at its end."""
        with (self._folder / folder / file).open("rb") as content:
            content.seek(offset)
            return content.read(CHUNK_BYTES)

    def begin_upload(self) -> None:
        """Forget the files of an upload that was never finished."""
        shutil.rmtree(self._incoming, ignore_errors=True)
        self._incoming.mkdir(parents=True)

    def append(self, file: str, data: bytes) -> None:
        """Add to a file of the upload."""
        with (self._incoming / file).open("ab") as content:
            content.write(data)

    def finish_upload(self, folder: str, keep: list[str] | None = None) -> None:
        """Move the complete upload to `folder`. keep: the checkpoints beside it to keep, None for all."""
        target = self._folder / folder
        shutil.rmtree(target, ignore_errors=True)
        with atomic.replaced_folder(target) as aside:
            for path in self._incoming.iterdir():
                path.replace(aside / path.name)
        for old in target.parent.glob("step-*"):
            if keep is not None and old.name not in keep:
                shutil.rmtree(old)


class _Failed(Exception):
    """Ends a run as failed."""


class Driver:
    """The actor as other processes see it; its UserError is raised here as one."""

    def __init__(self, actor: ActorHandle) -> None:
        self._actor = actor

    def _call(self, method: str, *arguments: object) -> Any:
        try:
            return ray.get(getattr(self._actor, method).remote(*arguments), timeout=ANSWER_S)
        except RayTaskError as error:
            raise (error.cause if isinstance(error.cause, UserError) else error) from None

    def status(self) -> Status:
        return self._call("status")

    def request_stop(self) -> None:
        self._call("request_stop")

    def report_error(self, error: UserError) -> None:
        self._call("report_error", ReportedError.of(error))

    def queue_seconds(self) -> float:
        return self._call("queue_seconds")

    def open_run(self) -> str | None:
        return self._call("open_run")

    def log(self, metrics: Mapping[str, float | None], step: int) -> None:
        self._call("log", metrics, step)

    def report(self, report: EpochReport) -> None:
        self._call("report", report)

    def take_reports(self) -> list[EpochReport]:
        return self._call("take_reports")

    def end_run(self, *, failed: bool) -> None:
        self._call("end_run", failed)

    def fetch_checkpoints(self, folder: Path) -> None:
        """Make a folder of this node hold the driver's checkpoints; those that it has already do not travel."""
        wanted: dict[str, str] = self._call("checksums")
        for path in folder.glob("step-*"):
            sums = path / SUMS
            if not sums.is_file() or sums.read_text(encoding="utf-8") != wanted.get(path.name):
                shutil.rmtree(path)
        for name in wanted:
            if not (folder / name).exists():
                self._fetch_folder(f"checkpoints/{name}", folder / name)

    def _fetch_folder(self, folder: str, to: Path) -> None:
        with atomic.replaced_folder(to) as aside:
            for file in self._call("files", folder):
                with (aside / file).open("wb") as content:
                    while part := self._call("read", folder, file, content.tell()):
                        content.write(part)

    def send_folder(self, path: Path, folder: str, keep: list[str] | None = None) -> None:
        """Copy a folder of this node to the driver's `folder`, all or nothing; see `DriverActor.finish_upload`."""
        self._call("begin_upload")
        for file in sorted(path.iterdir()):
            with file.open("rb") as content:
                while part := content.read(CHUNK_BYTES):
                    self._call("append", file.name, part)
        self._call("finish_upload", folder, keep)


@contextmanager
def started(folder: Path, open_run: OpenRun, stop: threading.Event, log: TrainingLog) -> Iterator[Driver]:
    """An actor on this process's node while the block runs; the workers are told to stop when `stop` is set.

    log: receives a report on each epoch, in this process.
    """
    options = {
        "num_cpus": 0,
        "max_concurrency": 8,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False),
        "runtime_env": {"env_vars": connection.environment()},
    }
    actor = cast("ActorHandle", ray.remote(DriverActor).options(**options).remote(folder, open_run))
    driver = Driver(actor)

    def pass_reports_on() -> None:
        for report in driver.take_reports():
            log.epoch(report)

    def exchange() -> None:
        if stop.is_set():
            driver.request_stop()
        pass_reports_on()

    try:
        with periodically(exchange, POLL_S, "driver"):
            yield driver
    finally:
        with suppress(RayError):
            pass_reports_on()
        ray.kill(actor)
