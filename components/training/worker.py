"""What a worker of a training does, in the stage's own process or anywhere on a cluster."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from components.datasets.prepared import load_prepared
from components.monitoring import logs, metrics
from components.storage.start_weights import local_weights
from components.training import results
from components.training.job import Job, RunRecord, WorkerContext
from components.training.nodes import node_folder, path_on_node
from yolo_core.errors import UserError, known_as, reporting_machine_limits
from yolo_core.progress import Progress
from yolo_core.train import EpochRow, OnLog, Pace, checkpoint, distributed, fit

if TYPE_CHECKING:
    from components.training.driver import Driver

POLL_S = 0.5
END_AFTER_ERROR_S = 15.0  # for a worker to end by itself once another has reported an error


def work_remotely(job: Job, driver: Driver, node: str) -> None:
    """`work` in a worker process. A UserError ends it quietly: restarting the workers would not help.

    node: the driver's.
    """
    from ray.train.torch import get_device

    from components.monitoring.progress import on_stderr

    logs.show()
    logging.getLogger("ray.train").setLevel(logging.WARNING)
    if driver.status().error:  # a worker reported one, and this one was restarted since
        return
    if torch.cuda.is_available() and job.params.train.gpus_per_worker:
        torch.cuda.set_device(get_device())
    if job.params.train.workers.vary and not distributed.form_team(job.config.batch):
        return
    with _stop_requests(driver) as should_stop:
        try:
            with reporting_machine_limits():
                job, send_folder = _on_this_node(job, driver, node)
                open_run = partial(_RemoteRun, driver)
                context = WorkerContext(open_run, should_stop, send_folder, driver.report, driver.queue_seconds())
                work(job, context, on_stderr())
            if send_folder:  # the driver has all that counts
                shutil.rmtree(job.folder, ignore_errors=True)
        except UserError as error:
            driver.report_error(error)


@contextlib.contextmanager
def _stop_requests(driver: Driver) -> Iterator[Callable[[], bool]]:
    """Yield whether the driver asks to stop; it is polled in a thread while the block runs.

    A worker that waits for one that has ended with an error would wait forever: its process is ended.
    """
    from ray.exceptions import RayActorError

    over, stop = threading.Event(), threading.Event()

    def poll() -> None:
        while not over.wait(POLL_S):
            try:
                status = driver.status()
            except RayActorError:  # the driver is gone, and Ray ends this process
                return
            if status.stop_requested:
                stop.set()
            if status.error and not over.wait(END_AFTER_ERROR_S):
                os._exit(1)

    threading.Thread(target=poll, name="driver", daemon=True).start()
    try:
        yield stop.is_set
    finally:
        over.set()


def _on_this_node(job: Job, driver: Driver, node: str) -> tuple[Job, Callable[[Path], None] | None]:
    """The job with the paths of this worker's node, and what sends its folders to the driver's node.

    On the driver's node the job as it is, and None.
    """
    import ray

    if ray.get_runtime_context().get_node_id() == node:
        return job, None
    here = node_folder()
    data, start = job.data, job.config.start_from
    start_from = str(path_on_node(Path(start), job.addresses.get(start), local_weights)) if start else ""
    job = dataclasses.replace(
        job,
        data=path_on_node(data, job.addresses.get(str(data))),
        folder=here / "train" / job.folder.name,
        images=dataclasses.replace(job.images, folder=here / "cache"),
        config=dataclasses.replace(job.config, start_from=start_from),
    )
    if distributed.is_main():
        driver.fetch_checkpoints(job.checkpoints)

    def send_folder(path: Path) -> None:
        kept = [path.name for path in checkpoint.found(job.checkpoints)] if path.parent == job.checkpoints else None
        driver.send_folder(path, str(path.relative_to(job.folder)), kept)

    return job, send_folder


def work(job: Job, context: WorkerContext, progress: Progress) -> None:
    """Train; the main worker records the curves in MLflow as they grow and writes the results."""
    began = time.monotonic()
    train_set, val_set = (load_prepared(job.data, split, cache=job.images) for split in ("train", "val"))
    for split in (train_set, val_set):
        split.open_cache(job.config.size, progress)
    with _recorded(job, context) as (run, on_log):
        with known_as(batch="train.batch", freeze="train.freeze", class_weights="train.class_weights"):
            result = fit(
                job.config,
                train_set,
                val_set,
                work=job.checkpoints,
                on_log=on_log,
                on_epoch=lambda row: _log_epoch(run, row),
                on_report=context.on_report,
                on_save=context.send_folder,
                should_stop=context.should_stop,
                progress=progress,
            )
        if distributed.is_main():
            results.write(job, result, train_set.classes, run.run_id, time.monotonic() - began)
            if context.send_folder:
                context.send_folder(job.results)
    distributed.barrier()


@contextlib.contextmanager
def _recorded(job: Job, context: WorkerContext) -> Iterator[tuple[RunRecord, OnLog | None]]:
    """The main worker's run, and what reports the losses to it and to Prometheus; on the other workers nothing."""
    if not distributed.is_main():
        yield _NoRun(), None
        return
    with context.open_run() as run, metrics.training(job.config.model, context.queue_seconds) as report:

        def on_log(step: int, losses: dict[str, float], pace: Pace) -> None:
            run.log({f"train/{name}": value for name, value in losses.items()}, step)
            report(step, losses, pace)

        yield run, on_log


class _NoRun:
    """Records nothing, for the workers besides the main one."""

    run_id = None

    def log(self, metrics: Mapping[str, float | None], step: int) -> None: ...


class _RemoteRun(contextlib.AbstractContextManager):
    """The run that the driver's actor records and ends."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.run_id = driver.open_run()

    def log(self, metrics: Mapping[str, float | None], step: int) -> None:
        self._driver.log(metrics, step)

    def __exit__(self, *_: object) -> None: ...


def _log_epoch(run: RunRecord, row: EpochRow) -> None:
    """An epoch's figures, to MLflow."""
    run.log({"epoch": row["epoch"], "val/AP": row["AP"], "val/AP50": row["AP50"]}, row["step"])
