"""Stage `train`: Ray Train around the core's training loop, with resume by the same command.

Unfinished work lies in work/train/<model>/<digest>, the digest being of everything that determines the result:
the same command goes on from the checkpoints there, another one starts beside them. At success the results move
to `out` and the folder goes. All of it lies on the driver's machine, on whichever nodes the workers run.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import fcntl
import hashlib
import io
import json
import logging
import os
import platform
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml

from components import metrics, tracking, tracking_journal
from components.inputs import require
from components.params import Params, Workers, hyperparameters
from components.ray_cluster import connected
from components.storage.location import is_remote
from yolo_core import atomic
from yolo_core.data.coco import CacheSettings, load_split
from yolo_core.errors import TryAgain, UserError
from yolo_core.models import get_spec
from yolo_core.models.spec import Anchors
from yolo_core.models.weights import save_detector
from yolo_core.progress import Progress, silent
from yolo_core.train import Evaluation, OnLog, Pace, Phase, TrainConfig, TrainResult, checkpoint, distributed, fit
from yolo_core.train.transfer import Transfer

RESULTS = ("model.safetensors", "curves.csv", "train.json")
CURVES: tuple[str, ...] = ("epoch", "step", "lr", "box", "obj", "cls", "loss", "AP", "AP50")
RESTARTS = 2  # of the workers after faults that are not the user's, without any progress
START_ATTEMPTS = 30  # to find room for the workers, of a minute each
STOP_LIMIT_S = 25  # from SIGTERM to the end
RESIZE_EVERY_S = 30.0  # between looks whether there is room for more workers

log = logging.getLogger(__name__)


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
    asked_to_stop: Callable[[], bool]
    keep: Callable[[Path], None] | None = None
    queued: float | None = None


def run(
    params: Params,
    *,
    model: str,
    data: Path,
    anchors: Path,
    hyp: Path | None,
    out: Path,
    work: Path = Path("runs"),
    progress: Progress = silent,
) -> dict[str, Any]:
    """Train `model` and write model.safetensors, curves.csv and train.json to `out`; returns its main figures.

    Raises UserError for missing or wrong inputs, and when another process trains this model in `work`; TryAgain when it
    was told to end (SIGTERM) and has written a checkpoint, or when the cluster has no room for the workers.
    """
    config = configure(params, model, data, anchors, hyp)
    place = work.absolute() / "train" / model
    with _alone(place, model):
        folder = place / checkpoint.digest(config.identity())[:16]
        job = Job(params, config, data.absolute(), folder, image_cache(params, data, work))
        folder.mkdir(parents=True, exist_ok=True)
        _launch(job, progress)
        for name in RESULTS:
            atomic.write_bytes(out / name, (job.results / name).read_bytes())
        if not tracking_journal.waiting("train", model):  # kept while they wait: the same command then ends soon
            shutil.rmtree(folder)
    record = json.loads((out / "train.json").read_text(encoding="utf-8"))
    return {key: record[key] for key in ("epochs", "best_epoch", "AP", "AP50", "images_per_second", "seconds")}


def configure(params: Params, model: str, data: Path, anchors: Path, hyp: Path | None) -> TrainConfig:
    """The training's configuration. Hyperparameters: the model's recipe, then `train.hyp`, then the evolved ones."""
    require(data / "manifest.json", "prepare")
    settings, spec = params.train_settings(model), get_spec(model)
    spec.checked_size(settings.size, "train.size")
    first = hyperparameters(spec.hyp, settings.hyp, _evolved(hyp))
    phases = [Phase(settings.epochs, first)]
    if second := settings.second_stage:
        phases.append(Phase(second.epochs, hyperparameters(first, second.hyp)))
    judged, weights = params.evaluate, _start_weights(settings.weights)
    return TrainConfig(
        model=model,
        phases=tuple(phases),
        size=settings.size,
        batch=settings.batch,
        nominal_batch=settings.nominal_batch,
        seed=params.seed,
        anchors=_anchors(anchors, model, settings.size),
        width=settings.width,
        depth=settings.depth,
        checkpointing=settings.checkpointing,
        start_from=str(Path(weights).absolute()) if weights else "",
        start_digest=_file_digest(weights) if weights else "",
        freeze=tuple(settings.freeze),
        multi_scale=settings.multi_scale,
        sync_bn=settings.sync_bn,
        ema_decay=params.train.ema_decay,
        ema_tau=params.train.ema_tau,
        eval_every=params.train.eval_every,
        evaluation=Evaluation(judged.batch, judged.conf, judged.iou, judged.max_detections),
        judge=judged.judge,
        data=tracking.manifest_digest(data),
        device=params.train.device,
        precision="auto" if params.train.amp else "fp32",
        compile=params.train.compile,
        loader_workers=params.train.loader_workers,
        checkpoint_every=params.train.checkpoint_every,
        keep_checkpoints=params.train.keep_checkpoints,
        stall_limit_s=params.train.stall_minutes * 60,
    )


def image_cache(params: Params, data: Path, work: Path) -> CacheSettings:
    """How decoded images are held; on disk all trainings of one work folder share them."""
    limit = int(params.train.cache_gib * (1 << 30))
    return CacheSettings(params.train.cache, limit, work.absolute() / "cache", tracking.manifest_digest(data))


def _evolved(path: Path | None) -> dict[str, float]:
    """The hyperparameters that evolution found, none where it was not asked."""
    if path is None:
        return {}
    try:
        values = yaml.safe_load(require(path, "evolve").read_text(encoding="utf-8"))["hyp"] or {}
        return {str(name): float(value) for name, value in values.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError):
        raise UserError(f"{path}: not a file of hyperparameters; run `scaled-yolov4 evolve` again") from None


def _start_weights(path: str | None) -> str | None:
    """The path of `train.weights`; of an address in the object store that of a working copy."""
    if not path or not is_remote(path):
        return path
    from components.storage.stage_paths import local_copy

    return local_copy(path)


def _file_digest(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"train.weights = {path}: cannot be read ({error.strerror or error})") from None


def _anchors(path: Path, model: str, size: int) -> Anchors:
    """The anchors chosen for this model, in pixels at the training size."""
    try:
        # The stage makes them for the models of the parameters; this one may have been named by hand.
        content = json.loads(require(path, f"anchors {_for_model(model, size)}").read_text(encoding="utf-8"))
        made_for = content["model"], content["size"]
        levels = tuple(tuple((float(w), float(h)) for w, h in level) for level in content["anchors"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{path}: not a file of anchors; run `scaled-yolov4 anchors` again") from None
    if made_for != (model, size):
        raise UserError(
            f"{path}: anchors of {made_for[0]} at {made_for[1]} px, training {model} at {size} px; "
            f"run `scaled-yolov4 anchors {_for_model(model, size)}`"
        )
    return levels


def _for_model(model: str, size: int) -> str:
    """Options that have a stage work for this model at this size, whatever the parameter file says."""
    return f"-S 'models=[{model}]' -S train.per_model.{model}.size={size}"


@contextlib.contextmanager
def _alone(place: Path, model: str) -> Iterator[None]:
    """Hold the folder of this model's trainings; the system lets go of it when the process ends, however it ends."""
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{place}: another run is training {model} there; wait for it, or give --work another folder"
            ) from None
        yield


@contextlib.contextmanager
def _stop_signal() -> Iterator[threading.Event]:
    """An event that SIGTERM sets instead of ending the process, where this is the main thread.

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
            f"no checkpoint written {STOP_LIMIT_S} s after SIGTERM; the same command goes on from the last one"
        )

    before = signal.signal(signal.SIGTERM, ask), signal.signal(signal.SIGALRM, give_up)
    try:
        yield stop
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGALRM, before[1])


def _launch(job: Job, progress: Progress) -> None:
    """Run the job with Ray Train: in this process for one worker, on a Ray cluster for more or when one is named."""
    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")  # it prints what code redirects, as pycocotools' tables
    record = partial(tracking_journal.journaled_run, job.params, job.data, stage="train", model=job.config.model)
    most = job.params.train.workers.max
    if most == 1 and not os.environ.get("RAY_ADDRESS"):
        with _stop_signal() as stop:
            _fit_with_ray(job, lambda: _work(job, Surroundings(record, stop.is_set), progress), workers=0)
        return
    with connected(most, show_workers=True), _stop_signal() as stop:
        _launch_on_cluster(job, record, stop)


def _launch_on_cluster(
    job: Job, record: Callable[[], contextlib.AbstractContextManager[Any]], stop: threading.Event
) -> None:
    """Run the job on workers anywhere; their errors for the user are raised here."""
    import ray

    from components import ray_home

    data, start = job.data, job.config.start_from
    origins = {str(path): ray_home.origin(Path(path)) for path in (data, start) if path}
    job = dataclasses.replace(job, origins={path: address for path, address in origins.items() if address})
    node, workers = ray.get_runtime_context().get_node_id(), job.params.train.workers
    with ray_home.opened(job.folder, record) as home, ray_home.forwarded(stop, home):
        try:
            with metrics.submitted(job.config.model):
                _fit_while_it_goes_on(job, partial(_work_remotely, job, home, node), workers)
            _, trouble = ray_home.answer(home.word.remote())
            if trouble:
                raise ray_home.KINDS[trouble[0]](trouble[1])
        except BaseException:
            ray_home.answer(home.end_record.remote(failed=True))
            raise
        ray_home.answer(home.end_record.remote(failed=False))


def _fit_while_it_goes_on(job: Job, function: Callable[[], None], workers: Workers) -> None:
    """Train; after faults the workers start again for as long as there are newer checkpoints than the time before."""
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
            log.warning("train %s: workers failed %d times, going on", job.config.model, RESTARTS + 1)


def _fit_with_ray(job: Job, function: Callable[[], None], workers: int | tuple[int, int]) -> None:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

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
        worker_runtime_env={"env_vars": tracking.environment()},
    )
    TorchTrainer(function, scaling_config=scaling, run_config=running).fit()


def _work_remotely(job: Job, home: Any, node: str) -> None:
    """`_work` in a worker process. A user's mistake ends it quietly: starting the workers again would not help.

    node: the driver's.
    """
    from ray.train.torch import get_device

    from components import ray_home
    from components.progress import on_stderr

    logging.getLogger("ray.train").setLevel(logging.WARNING)
    if ray_home.answer(home.word.remote())[1]:  # a worker found one, and this one was started again since
        return
    if torch.cuda.is_available() and job.params.train.gpus_per_worker:
        torch.cuda.set_device(get_device())
    if job.params.train.workers.vary and not distributed.form_team(job.config.batch):
        return
    with ray_home.listening(home) as asked_to_stop:
        try:
            job, keep = _settled(job, home, node)
            queued = ray_home.answer(home.queued.remote())
            _work(job, Surroundings(partial(_HomeRecord, home), asked_to_stop, keep, queued), on_stderr())
            if keep:  # all that counts is at home
                shutil.rmtree(job.folder, ignore_errors=True)
        except UserError as error:
            ray_home.answer(home.tell.remote(ray_home.kind_of(error), str(error)))


def _settled(job: Job, home: Any, node: str) -> tuple[Job, Callable[[Path], None] | None]:
    """The job with the paths of this worker's node, and what sends its folders home; on the driver's node as it is."""
    import ray

    from components import ray_home

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


def _work(job: Job, around: Surroundings, progress: Progress) -> None:
    """Train; the main worker records the curves in MLflow as they grow and writes the results."""
    began = time.monotonic()
    train_set, val_set = (load_split(job.data, split, cache=job.images) for split in ("train", "val"))
    for split in (train_set, val_set):
        split.open_cache(job.config.size, progress)
    with _recorded(job, around) as (record, on_log):
        result = fit(
            job.config,
            train_set,
            val_set,
            work=job.checkpoints,
            on_log=on_log,
            on_epoch=lambda row: _report(record, row),
            on_save=around.keep,
            asked_to_stop=around.asked_to_stop,
            progress=progress,
        )
        if distributed.is_main():
            _write(job, result, train_set.classes, record.run_id, time.monotonic() - began)
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
        from components.ray_home import answer

        self._home, self._answer = home, answer
        self.run_id: str | None = answer(home.run_id.remote())

    def log(self, metrics: dict[str, float | None], step: int) -> None:
        self._answer(self._home.log.remote(metrics, step))

    def __exit__(self, *_: object) -> None: ...


def _report(record: Any, row: dict[str, Any]) -> None:
    """An epoch's figures, to MLflow."""
    record.log({"epoch": row["epoch"], "val/AP": row["AP"], "val/AP50": row["AP50"]}, row["step"])


def _write(job: Job, result: TrainResult, classes: list[str], run_id: str | None, seconds: float) -> None:
    """The results, in the job's folder for them."""
    weights, curves, summary = (job.results / name for name in RESULTS)
    extra = {"epoch": result.best["epoch"], "fitness": result.best["fitness"]}
    save_detector(weights, result.model, classes=classes, size=job.config.size, extra=extra)
    atomic.write_text(curves, _csv(result.rows))
    atomic.write_json(summary, _summary(job, result, run_id, seconds))


def _taken_over(config: TrainConfig, transfer: Transfer | None) -> dict[str, Any] | None:
    """Which weights the training started from, and what of them fitted."""
    if transfer is None:
        return None
    return {"file": config.start_from, "sha256": config.start_digest, **dataclasses.asdict(transfer)}


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    table = csv.DictWriter(text, list(CURVES), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def _summary(job: Job, result: TrainResult, run_id: str | None, seconds: float) -> dict[str, Any]:
    config, best = job.config, result.best
    return {
        "model": config.model,
        "size": config.size,
        "batch": config.batch,
        "epochs": config.phases[-1].epochs,
        "steps": result.steps,
        "best_epoch": best["epoch"],
        "fitness": best["fitness"],
        "AP": best["AP"],
        "AP50": best["AP50"],
        "images_per_second": round(result.images_per_second, 2),
        "seconds": round(seconds, 2),
        "resumed_at_step": result.resumed_at,
        "device": result.device,
        "precision": result.dtype,
        "workers": distributed.world(),
        "started_from": _taken_over(config, result.transfer),
        "digest": checkpoint.digest(config.identity()),
        "mlflow_run_id": run_id,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("scaled-yolov4", "torch", "ray")},
        },
    }
