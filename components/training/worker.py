"""What a worker of a training does, in the stage's own process or anywhere on a cluster."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from components.monitoring import metrics
from components.training import results
from components.training.job import Job, Surroundings
from yolo_core.data.coco import load_split
from yolo_core.errors import UserError, full_disk_told, known_as
from yolo_core.progress import Progress
from yolo_core.train import EpochRow, OnLog, Pace, checkpoint, distributed, fit


def work_remotely(job: Job, home: Any, node: str) -> None:
    """`work` in a worker process. A user's mistake ends it quietly: starting the workers again would not help.

    node: the driver's.
    """
    from ray.train.torch import get_device

    from components.monitoring.progress import on_stderr
    from components.training import driver as ray_home

    logging.getLogger("ray.train").setLevel(logging.WARNING)
    if ray_home.answer(home.word.remote())[1]:  # a worker found one, and this one was started again since
        return
    if torch.cuda.is_available() and job.params.train.gpus_per_worker:
        torch.cuda.set_device(get_device())
    if job.params.train.workers.vary and not distributed.form_team(job.config.batch):
        return
    with ray_home.listening(home) as should_stop:
        try:
            with full_disk_told():
                job, keep = _settled(job, home, node)
                queued = ray_home.answer(home.queued.remote())
                work(job, Surroundings(partial(_HomeRecord, home), should_stop, keep, queued), on_stderr())
            if keep:  # all that counts is at home
                shutil.rmtree(job.folder, ignore_errors=True)
        except UserError as error:
            ray_home.answer(home.tell.remote(ray_home.kind_of(error), str(error)))


def _settled(job: Job, home: Any, node: str) -> tuple[Job, Callable[[Path], None] | None]:
    """The job with the paths of this worker's node, and what sends its folders home; on the driver's node as it is."""
    import ray

    from components.training import driver as ray_home

    if ray.get_runtime_context().get_node_id() == node:
        return job, None
    here = ray_home.node_folder()
    data, start = job.data, job.config.start_from
    job = dataclasses.replace(
        job,
        data=ray_home.brought(data, job.origins.get(str(data))),
        folder=here / "train" / job.folder.name,
        images=dataclasses.replace(job.images, folder=here / "cache"),
        config=dataclasses.replace(
            job.config, start_from=str(ray_home.brought(Path(start), job.origins.get(start))) if start else ""
        ),
    )
    if distributed.is_main():
        ray_home.bring_checkpoints(home, job.checkpoints)

    def keep(path: Path) -> None:
        beside = [path.name for path in checkpoint.found(job.checkpoints)]
        ray_home.send(home, path, str(path.relative_to(job.folder)), beside if path.parent == job.checkpoints else None)

    return job, keep


def work(job: Job, around: Surroundings, progress: Progress) -> None:
    """Train; the main worker records the curves in MLflow as they grow and writes the results."""
    began = time.monotonic()
    train_set, val_set = (load_split(job.data, split, cache=job.images) for split in ("train", "val"))
    for split in (train_set, val_set):
        split.open_cache(job.config.size, progress)
    with _recorded(job, around) as (record, on_log):
        with known_as(batch="train.batch", freeze="train.freeze"):
            result = fit(
                job.config,
                train_set,
                val_set,
                work=job.checkpoints,
                on_log=on_log,
                on_epoch=lambda row: _report(record, row),
                on_save=around.keep,
                should_stop=around.should_stop,
                progress=progress,
            )
        if distributed.is_main():
            results.write(job, result, train_set.classes, record.run_id, time.monotonic() - began)
            if around.keep:
                around.keep(job.results)
    distributed.barrier()


@contextlib.contextmanager
def _recorded(job: Job, around: Surroundings) -> Iterator[tuple[Any, OnLog | None]]:
    """The main worker's run, and what tells it and Prometheus of the losses; on the other workers nothing."""
    if not distributed.is_main():
        yield _NoRecord(), None
        return
    with around.record() as record, metrics.training(job.config.model, around.queued) as look:

        def on_log(step: int, losses: dict[str, float], pace: Pace) -> None:
            record.log({f"train/{name}": value for name, value in losses.items()}, step)
            look(step, losses, pace)

        yield record, on_log


class _NoRecord:
    """What the workers beside the main one record: nothing."""

    run_id = None

    def log(self, metrics: dict[str, float | None], step: int) -> None: ...


class _HomeRecord(contextlib.AbstractContextManager):
    """A record that the driver's node keeps; the driver ends it."""

    def __init__(self, home: Any) -> None:
        from components.training.driver import answer

        self._home, self._answer = home, answer
        self.run_id: str | None = answer(home.run_id.remote())

    def log(self, metrics: dict[str, float | None], step: int) -> None:
        self._answer(self._home.log.remote(metrics, step))

    def __exit__(self, *_: object) -> None: ...


def _report(record: Any, row: EpochRow) -> None:
    """An epoch's figures, to MLflow."""
    record.log({"epoch": row["epoch"], "val/AP": row["AP"], "val/AP50": row["AP50"]}, row["step"])
