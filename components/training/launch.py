"""Where a training runs until it ends or is stopped: in this process, or with Ray Train on workers of a cluster."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from components import telemetry
from components.monitoring import metrics
from components.monitoring.training_log import TrainingLog
from components.params import Workers
from components.storage.location import is_remote
from components.storage.start_weights import Source
from components.tracking import connection, journaled_run
from components.tracking.sinks import NO_SINKS, Sinks
from components.training.job import Job, OpenRun, WorkerContext
from components.training.nodes import store_address
from components.training.ray_cluster import connected
from components.training.worker import work, work_remotely
from yolo_core.errors import TryAgain
from yolo_core.progress import Progress
from yolo_core.train import checkpoint

if TYPE_CHECKING:
    from ray.train.torch import TorchTrainer

RESTARTS = 2  # of the workers after failures that are not the user's, without any progress
START_ATTEMPTS = 30  # to find room for the workers, of a minute each
STOP_LIMIT_S = 25  # from SIGTERM to the end
RESIZE_EVERY_S = 30.0  # between looks whether there is room for more workers

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def _stop_signal() -> Iterator[threading.Event]:
    """An event that SIGTERM sets instead of ending the process, if this is the main thread.

    Raises TryAgain when the block does not end in time after that.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(*_: object) -> None:
        stop.set()
        signal.alarm(STOP_LIMIT_S)

    def give_up(*_: object) -> None:
        raise TryAgain(
            f"no checkpoint written {STOP_LIMIT_S} s after SIGTERM; the same command continues from the last one"
        )

    before = signal.signal(signal.SIGTERM, ask), signal.signal(signal.SIGALRM, give_up)
    try:
        yield stop
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGALRM, before[1])


def launch(job: Job, progress: Progress, log: TrainingLog, sinks: Sinks = NO_SINKS) -> None:
    """Run the job: in this process for one worker, with Ray Train on a cluster for more or when RAY_ADDRESS is set.

    log: receives a report on each epoch, in this process. sinks: who else receives the metrics.
    """
    run = partial(journaled_run.journaled_run, job.params, job.data, stage="train", model=job.config.model)
    open_run = partial(run, sinks=sinks)
    most = job.params.train.workers.max
    if most == 1 and not os.environ.get("RAY_ADDRESS"):
        with _stop_signal() as stop:
            work(job, WorkerContext(open_run, stop.is_set, on_report=log.epoch), progress)
        return
    telemetry.turn_off()
    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")  # it prints what code redirects, as pycocotools' tables
    with connected(most, show_workers=True), _stop_signal() as stop:
        _launch_on_cluster(job, open_run, stop, log)


def _launch_on_cluster(job: Job, open_run: OpenRun, stop: threading.Event, log: TrainingLog) -> None:
    """Run the job on workers anywhere in the cluster; their UserErrors are raised here."""
    import ray

    from components.training import driver as driver_

    job = dataclasses.replace(job, addresses=_addresses(job))
    node, workers = ray.get_runtime_context().get_node_id(), job.params.train.workers
    with driver_.started(job.folder, open_run, stop, log) as driver:
        try:
            with metrics.submitted(job.config.model):
                _fit_while_it_progresses(job, partial(work_remotely, job, driver, node), workers)
            if error := driver.status().error:
                raise error.exception()
        except BaseException:
            driver.end_run(failed=True)
            raise
        driver.end_run(failed=False)


def _addresses(job: Job) -> dict[str, str]:
    """Where other nodes fetch the paths that are local copies here."""
    start, weights = job.config.start_from, job.params.train_settings(job.config.model).weights
    found = {str(job.data): store_address(job.data)}
    if start and weights:
        given = Source.parse(weights)
        found[start] = given.pinned(job.config.start_digest) if is_remote(weights) else store_address(Path(start))
    return {path: address for path, address in found.items() if address}


def _fit_while_it_progresses(job: Job, function: Callable[[], None], workers: Workers) -> None:
    """Train; after failures the workers are restarted as long as there are newer checkpoints than the time before."""
    from ray.train import ControllerError, TrainingFailedError

    while True:
        before = checkpoint.found(job.checkpoints)[:1]
        try:
            return _fit_with_ray(job, function, (workers.min, workers.max) if workers.vary else workers.max)
        except ControllerError as error:
            why = str(error).partition("\n")[0]
            raise TryAgain(f"Ray could not start {workers.min} workers; is there room for them? ({why})") from error
        except TrainingFailedError:
            if checkpoint.found(job.checkpoints)[:1] == before:
                raise
            _log.warning("train %s: workers failed %d times, continuing", job.config.model, RESTARTS + 1)


def _fit_with_ray(job: Job, function: Callable[[], None], workers: int | tuple[int, int]) -> None:
    from ray.train import FailureConfig, RunConfig, ScalingConfig

    logging.getLogger("ray.train").setLevel(logging.WARNING)
    gpus = job.params.train.gpus_per_worker
    scaling = ScalingConfig(
        num_workers=workers,
        elastic_resize_monitor_interval_s=RESIZE_EVERY_S,
        use_gpu=gpus > 0,
        resources_per_worker={"CPU": 1, "GPU": gpus} if gpus else {"CPU": 1},
    )
    running = RunConfig(
        name="train",
        storage_path=str(job.folder / "ray"),
        failure_config=FailureConfig(max_failures=RESTARTS, controller_failure_limit=START_ATTEMPTS),
        worker_runtime_env={"env_vars": connection.environment()},
    )
    _trainer()(function, scaling_config=scaling, run_config=running).fit()


def _trainer() -> type[TorchTrainer]:
    """Ray's trainer, but Ctrl-C ends the command with its own exit code, without waiting for the workers.

    On a local cluster it also does without Ray's cleaner, which asks the dashboard every second and warns that there is
    none.
    """
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api import data_parallel_trainer
    from ray.train.v2.api.callback import RayTrainCallback

    class Trainer(TorchTrainer):
        def _register_sigint_handler(self, controller: object) -> None: ...

    if not os.environ.get("RAY_ADDRESS"):
        data_parallel_trainer.PlacementGroupCleanerCallback = RayTrainCallback  # pyright: ignore[reportPrivateImportUsage]
    return Trainer
