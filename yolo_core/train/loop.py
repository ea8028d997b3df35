"""The training loop: `fit` takes a configuration and two splits and gives the trained detector.

On the CPU with one worker the result is a pure function of the configuration and the data, whether or not the
process was killed on the way: whatever the loop carries from step to step is in its checkpoints.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from yolo_core.data.coco import DetectionDataset
from yolo_core.data.loader import Batch, train_batches
from yolo_core.device import autocast_dtype, describe, pick_device
from yolo_core.errors import Diverged, TryAgain, UserError
from yolo_core.evaluate.coco_metrics import Judge, score
from yolo_core.evaluate.detections import Detections
from yolo_core.evaluate.predict import predict
from yolo_core.evaluate.suppression import Suppression
from yolo_core.evaluate.tta import Plain
from yolo_core.models import Detector, build_model, get_spec
from yolo_core.models.spec import Anchors
from yolo_core.models.weights import load_detector
from yolo_core.progress import Progress, silent
from yolo_core.train import checkpoint, distributed, optim
from yolo_core.train.schedule import Phase, Schedule
from yolo_core.train.stall import watched
from yolo_core.train.step import LOSSES, Learner, reproducible
from yolo_core.train.transfer import Transfer, freeze, transfer

log = logging.getLogger(__name__)
T = TypeVar("T")

CHECK_EVERY = 10  # steps between looks at the losses: each look waits for the device
WITHOUT_EFFECT = (  # on the result
    "loader_workers",
    "checkpoint_every",
    "keep_checkpoints",
    "stall_limit_s",
    "checkpointing",
    "start_from",
    "judge",
)


@dataclass(frozen=True)
class Evaluation:
    """How the average weights are scored on the validation split: thresholds of the public protocol."""

    batch: int = 16
    conf: float = 0.001
    iou: float = 0.65
    max_detections: int = 300


@dataclass(frozen=True)
class TrainConfig:
    """Everything `fit` needs besides the data.

    phases: hyperparameters until an epoch; the last one ends the training.
    batch, nominal_batch: images per step over all workers, and per update of the weights.
    size: pixels, side of the training square. anchors: pixels at that size, None takes the published ones.
    checkpointing: whether activations are recomputed in the backward pass instead of kept.
    compile: whether the model runs through torch.compile, where that works.
    start_from: a detector's file whose weights the training starts from, "" for none; start_digest: of its content.
    freeze: dotted names of the parts that keep their weights.
    data: a digest of the data set, recorded so that a checkpoint of other data is refused.
    precision: see `yolo_core.device.autocast_dtype`.
    eval_every: epochs; the last epoch is always evaluated. checkpoint_every: steps; epochs end with one too.
    keep_checkpoints: the newest ones; each also holds the best average weights so far.
    stall_limit_s: seconds without a step, or a batch of an evaluation, after which the process ends; None for no limit.
    """

    model: str
    phases: tuple[Phase, ...]
    size: int
    batch: int
    nominal_batch: int = 64
    seed: int = 0
    anchors: Anchors | None = None
    width: float = 1.0
    depth: float = 1.0
    multi_scale: bool = False
    sync_bn: bool = False
    checkpointing: bool = False
    compile: bool = False
    start_from: str = ""
    start_digest: str = ""
    freeze: tuple[str, ...] = ()
    ema_decay: float = 0.9999
    ema_tau: float = 2000.0
    eval_every: int = 1
    evaluation: Evaluation = Evaluation()
    judge: Judge = "hotcoco"
    data: str = ""
    device: str = "auto"
    precision: str = "auto"
    loader_workers: int = 0
    checkpoint_every: int = 1000
    keep_checkpoints: int = 2
    stall_limit_s: float | None = None

    def identity(self) -> dict[str, Any]:
        """The part that determines the result; the rest says only how it is reached."""
        values = dataclasses.asdict(self)
        for name in WITHOUT_EFFECT:
            del values[name]
        return {**values, "device": pick_device(self.device).type}


@dataclass(frozen=True)
class TrainResult:
    """model: the average weights of the best epoch, on the CPU, in evaluation mode.

    rows: the learning curves, a row per epoch. best: epoch, fitness, AP and AP50 of the chosen weights.
    seconds: of this process; resumed_at: the step it went on from, 0 from the start.
    transfer: what was taken over from other weights.
    """

    model: Detector
    rows: list[dict[str, Any]]
    best: dict[str, Any]
    steps: int
    images_per_second: float
    seconds: float
    resumed_at: int
    device: str
    dtype: str
    transfer: Transfer | None


@dataclass
class Pace:
    """What went on between two looks at the losses, on this worker but for `images`, which are those of all.

    seconds: in steps, in waiting for their batches and for the device; waiting: of these, for batches.
    """

    images: int = 0
    seconds: float = 0.0
    waiting: float = 0.0


OnLog = Callable[[int, dict[str, float], Pace], None]


@dataclass
class Run:
    """A training under way. What changes from step to step is here, and in the checkpoints."""

    config: TrainConfig
    schedule: Schedule
    learner: Learner
    transfer: Transfer | None
    alive: Callable[[], None]  # see `yolo_core.train.stall`
    asked_to_stop: Callable[[], bool]
    step: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0] * (len(LOSSES) + 1))  # of the epoch so far
    rows: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=dict)
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    unchecked: list[Tensor] = field(default_factory=list)  # losses (4,) of the latest steps, still on the device
    images: int = 0
    step_seconds: float = 0.0  # in steps, in waiting for their batches and for the device
    pace: Pace = field(default_factory=Pace)  # since the last look that was reported

    @property
    def epoch(self) -> int:
        return self.step // self.schedule.steps_per_epoch

    @property
    def owes_epoch(self) -> bool:
        """Whether an epoch's last step is done, and what comes after it is not."""
        return self.step % self.schedule.steps_per_epoch == 0 and len(self.rows) < self.epoch

    def took(self, seconds: float) -> None:
        self.step_seconds += seconds
        self.pace.seconds += seconds


def fit(
    config: TrainConfig,
    train_set: DetectionDataset,
    val_set: DetectionDataset,
    *,
    work: Path | None = None,
    on_log: OnLog | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
    on_save: Callable[[Path], None] | None = None,
    asked_to_stop: Callable[[], bool] = lambda: False,
    progress: Progress = silent,
) -> TrainResult:
    """Train, going on from the newest whole checkpoint in `work` when there is one.

    work: folder of the checkpoints, None for none; only the main worker's is used.
    on_log(step, losses, pace) and on_save(path of the checkpoint) are called on the main worker, on_epoch(row) on every
    one.
    asked_to_stop: whether to end at the next update of the weights, asked on every worker; one that says so is enough.
    Raises UserError for settings that do not fit the data or machine, Diverged when the loss is no longer finite;
    TryAgain when it was asked to stop, with a checkpoint written.
    """
    began = time.monotonic()
    device = pick_device(config.device)
    with reproducible(config.seed, device), watched(config.stall_limit_s) as alive:
        run = _start(config, train_set, device, alive, asked_to_stop)
        if work:
            _resume(run, work)
        resumed_at, due, stops = run.step, False, False
        if run.owes_epoch and not _end_epoch(run, val_set, on_log, on_epoch):
            raise _stopped(run)
        for batch in _reported(run, _batches(run, train_set), progress):
            alive()
            updated = _step(run, batch)
            if run.step % CHECK_EVERY == 0:
                _check(run, on_log)
            stops = stops or _is_to_stop(run)
            if run.owes_epoch and not (stops and updated):
                stops = not _end_epoch(run, val_set, on_log, on_epoch) or stops
                due = True
            due = due or stops or run.step % config.checkpoint_every == 0
            if work and due and updated:  # between updates there would be gradients to keep as well
                _save(run, work, on_save)
                due = False
            if stops and (updated or run.owes_epoch):
                raise _stopped(run)
    return _result(run, time.monotonic() - began, resumed_at)


def _is_to_stop(run: Run) -> bool:
    """The same answer on all workers. On a GPU it is not asked at every step, since the answer waits for the device."""
    if run.learner.device.type != "cpu" and run.step % CHECK_EVERY:
        return False
    return distributed.any_of(run.asked_to_stop())


def _stopped(run: Run) -> TryAgain:
    """The end of a training that was asked to stop, once the main worker has written what it writes."""
    distributed.barrier()
    return TryAgain(
        f"{run.config.model}: training was asked to stop at step {run.step} of {run.schedule.steps}; "
        "the same command goes on from its last checkpoint"
    )


def _reported(run: Run, batches: Iterator[Batch], progress: Progress) -> Iterator[Batch]:
    """One report for the whole training, on the main worker."""
    report = progress if distributed.is_main() else silent
    return report(batches, f"train {run.config.model}", run.schedule.steps - run.step)


def _start(
    config: TrainConfig,
    train_set: DetectionDataset,
    device: torch.device,
    alive: Callable[[], None],
    asked_to_stop: Callable[[], bool],
) -> Run:
    """Fresh weights and the state of step 0."""
    _check_fit(config, train_set)
    classes = len(train_set.classes)
    model = build_model(config.model, classes, config.width, config.depth, config.anchors)
    model.body.checkpointing = config.checkpointing
    taken = _take_over(config, model, train_set.classes) if config.start_from else None
    learner = Learner(
        model,
        config.phases,
        size=config.size,
        batch=config.batch,
        nominal_batch=config.nominal_batch,
        device=device,
        dtype=autocast_dtype(device, config.precision),
        sync_bn=config.sync_bn,
        frozen=freeze(model, config.freeze),
        compile=config.compile,
        dynamic=config.multi_scale,
        ema_decay=config.ema_decay,
        ema_tau=config.ema_tau,
    )
    schedule = Schedule(config.phases, _steps_per_epoch(config, train_set), config.batch, config.nominal_batch)
    return Run(config, schedule, learner, taken, alive, asked_to_stop)


def _take_over(config: TrainConfig, model: Detector, classes: list[str]) -> Transfer:
    """Start from other weights; heads only where they say the same classes in the same box coding."""
    source = load_detector(Path(config.start_from))
    same = source.classes == classes and source.model.spec.coding == model.spec.coding
    tensors = {name: value for name, value in source.model.state_dict().items() if same or name.startswith("body.")}
    try:
        taken = transfer(model, tensors)
    except UserError as error:
        raise UserError(f"{config.start_from}: {error}") from None
    if distributed.is_main():
        log.info("%s: %s", config.start_from, taken)
    return taken


def _check_fit(config: TrainConfig, train_set: DetectionDataset) -> None:
    if not len(train_set):
        raise UserError("the training split has no images; check the prepared dataset and its quarantine report")
    if config.batch % distributed.world():
        raise UserError(f"train.batch = {config.batch} must be a multiple of train.workers = {distributed.world()}")


def _steps_per_epoch(config: TrainConfig, train_set: DetectionDataset) -> int:
    return len(_epoch_batches(config, train_set, epoch=0, start_step=0))


def _epoch_batches(config: TrainConfig, train_set: DetectionDataset, epoch: int, start_step: int):
    hyp = next(phase.hyp for phase in config.phases if epoch < phase.epochs)
    return train_batches(
        train_set,
        hyp,
        size=config.size,
        batch=config.batch,
        seed=config.seed,
        epoch=epoch,
        start_step=start_step,
        rank=distributed.rank(),
        world=distributed.world(),
        workers=config.loader_workers,
        multi_scale=config.multi_scale,
        stride=get_spec(config.model).input_stride,
    )


def _batches(run: Run, train_set: DetectionDataset) -> Iterator[Batch]:
    """The batches from the run's step to the end, epoch after epoch."""
    while run.step < run.schedule.steps:
        start = run.step % run.schedule.steps_per_epoch
        batches = iter(_epoch_batches(run.config, train_set, run.epoch, start))
        while (batch := _timed(run, batches)) is not None:
            yield batch


def _timed(run: Run, batches: Iterator[Batch]) -> Batch | None:
    """The next batch, None at the end; waiting for it counts as time of the step."""
    began = time.monotonic()
    batch = next(batches, None)
    waited = time.monotonic() - began
    run.pace.waiting += waited
    run.took(waited)
    return batch


def _step(run: Run, batch: Batch) -> bool:
    """Learn from one batch; whether that also changed the weights. Nothing here waits for the device."""
    began = time.monotonic()
    updates = run.schedule.updates_at(run.step)
    phase, values = run.schedule.phase_at(run.epoch), run.schedule.at(run.step)
    run.unchecked.append(run.learner.learn(batch, phase, values, updates))
    run.step += 1
    images = len(batch.images) * distributed.world()
    run.images += images
    run.pace.images += images
    run.took(time.monotonic() - began)
    return updates


def _check(run: Run, on_log: OnLog | None) -> None:
    """Look at the losses since the last look: add them to the epoch's sums, stop when one is not finite."""
    if not run.unchecked:
        return
    began = time.monotonic()
    losses = distributed.mean(torch.stack(run.unchecked)).tolist()
    run.took(time.monotonic() - began)
    first = run.step - len(losses)
    run.unchecked.clear()
    for offset, values in enumerate(losses):
        if not all(map(math.isfinite, values)):
            raise Diverged(_diverged(run, first + offset))
        run.sums = [total + value for total, value in zip(run.sums, values, strict=True)]
    if on_log and distributed.is_main():
        on_log(run.step, {**_named(losses[-1]), "lr": run.schedule.at(run.step - 1).lr}, run.pace)
        run.pace = Pace()


def _diverged(run: Run, step: int) -> str:
    hyp = run.schedule.phase_at(step // run.schedule.steps_per_epoch).hyp
    return (
        f"{run.config.model}: the loss is not finite at step {step} (epoch {step // run.schedule.steps_per_epoch}); "
        f"lower train.hyp.lr0 (now {hyp.lr0:g}) or lengthen the warm-up (train.hyp.warmup_epochs)"
    )


def _named(values: list[float]) -> dict[str, float]:
    return dict(zip((*LOSSES, "loss"), values, strict=True))


def _end_epoch(
    run: Run,
    val_set: DetectionDataset,
    on_log: OnLog | None,
    on_epoch: Callable[[dict[str, Any]], None] | None,
) -> bool:
    """Close the epoch's row of the curves; evaluate when it is time and keep the best average weights.

    False when it was stopped before that: then nothing has changed, and the epoch is still to be ended.
    """
    _check(run, on_log)
    steps = run.schedule.steps_per_epoch
    row: dict[str, Any] = {"epoch": run.epoch, "step": run.step, "lr": run.schedule.at(run.step - 1).lr}
    row |= _named([total / steps for total in run.sums])
    row |= {"AP": None, "AP50": None}
    if run.epoch % run.config.eval_every == 0 or run.step == run.schedule.steps:
        figures = _evaluate(run, val_set)
        if figures is None:
            return False
        row |= figures
        _keep_if_best(run, row)
    run.sums = [0.0] * len(run.sums)
    run.rows.append(row)
    if on_epoch:
        on_epoch(row)
    return True


class _Stopped(Exception):
    """An evaluation was stopped."""


def _evaluate(run: Run, val_set: DetectionDataset) -> dict[str, float] | None:
    """AP and AP50 of the average weights on the validation split, 0 where it has no object; None when stopped.

    Every worker predicts its share of the images; the main worker scores what all have found.
    """
    distributed.copy_from_main(run.learner.ema.module.buffers())  # without sync_bn each has statistics of its own
    shares = distributed.gather(_predicted(run, val_set))
    found = [share for share in shares if share is not None]
    if len(found) < len(shares):
        return None
    return distributed.from_main(lambda: _scored(run, val_set, Detections.joined(found)))


def _predicted(run: Run, val_set: DetectionDataset) -> Detections | None:
    """What this worker detects on its share of the images; None when asked to stop."""

    def until_stopped(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        for item in items:
            run.alive()
            if run.asked_to_stop():
                raise _Stopped
            yield item

    settings = run.config.evaluation
    try:
        return predict(
            Plain(run.learner.ema.module),
            val_set,
            size=run.config.size,
            stride=run.learner.model.input_stride,
            device=run.learner.device,
            share=(distributed.rank(), distributed.world()),
            progress=until_stopped,
            batch=settings.batch,
            suppression=Suppression(settings.conf, settings.iou, settings.max_detections),
        )
    except _Stopped:
        return None


def _scored(run: Run, val_set: DetectionDataset, detections: Detections) -> dict[str, float]:
    shown = [image.id for image in val_set.images]
    position = {image: place for place, image in enumerate(shown)}
    order = np.argsort([position[image] for image in detections.image_id.tolist()], kind="stable")
    ordered = detections.where(order.astype(np.int64))  # as one worker would have found them
    figures = score(val_set.annotation_path, ordered, shown, run.config.judge).figures
    return {name: figures[name] or 0.0 for name in ("AP", "AP50")}


def fitness(ap: float, ap50: float) -> float:
    """What chooses the best weights, and drives the evolution of hyperparameters."""
    return 0.1 * ap50 + 0.9 * ap


def _keep_if_best(run: Run, row: dict[str, Any]) -> None:
    value = fitness(row["AP"], row["AP50"])
    if value >= run.best.get("fitness", -1.0):  # of equals the later: it was trained longer
        run.best = {"epoch": row["epoch"], "fitness": value, "AP": row["AP"], "AP50": row["AP50"]}
        run.best_weights = {name: tensor.clone() for name, tensor in run.learner.ema.module.state_dict().items()}


def _save(run: Run, work: Path, on_save: Callable[[Path], None] | None) -> None:
    """Write a checkpoint; every worker gives its random state, the main one writes."""
    _check(run, None)
    random_states = distributed.gather(checkpoint.random_state())
    if distributed.is_main():
        tensors = {
            "model": run.learner.model.state_dict(),
            "ema": run.learner.ema.module.state_dict(),
            "momentum": optim.momentum_state(run.learner.optimizer, run.learner.model),
            "best": run.best_weights,
        }
        keep = run.config.keep_checkpoints
        path = checkpoint.save(work, run.step, tensors, _state(run, random_states), run.config.identity(), keep)
        if on_save:
            on_save(path)


def _state(run: Run, random_states: list[dict[str, Any]]) -> dict[str, Any]:
    """All that is not a tensor. The schedule follows from the step; its values stand here for the reader."""
    return {
        "updates": run.learner.updates,
        "sampler": {"epoch": run.epoch, "batch": run.step % run.schedule.steps_per_epoch},
        "schedule": dataclasses.asdict(run.schedule.at(min(run.step, run.schedule.steps - 1))),
        "scaler": run.learner.scaler.state_dict(),
        "sums": run.sums,
        "rows": run.rows,
        "best": run.best,
        "random": random_states,
        "images": run.images,
        "step_seconds": run.step_seconds,
    }


def _resume(run: Run, work: Path) -> None:
    """Put the run where the newest whole checkpoint left it."""
    saved = _newest(run, work)
    if saved is None:
        return
    run.learner.model.load_state_dict(saved.tensors["model"])
    run.learner.ema.module.load_state_dict(saved.tensors["ema"])
    optim.load_momentum(run.learner.optimizer, run.learner.model, saved.tensors.get("momentum", {}))
    run.learner.scaler.load_state_dict(saved.state["scaler"])
    run.best_weights = saved.tensors.get("best", {})
    run.step, run.learner.updates = saved.state["step"], saved.state["updates"]
    run.sums, run.rows, run.best = saved.state["sums"], saved.state["rows"], saved.state["best"]
    run.images, run.step_seconds = saved.state["images"], saved.state["step_seconds"]
    states = saved.state["random"]
    checkpoint.set_random_state(states[distributed.rank() % len(states)])


def _newest(run: Run, work: Path) -> checkpoint.Checkpoint | None:
    """The newest whole checkpoint, None without one: read by the main worker and sent to the others."""
    read: dict[str, dict[str, Tensor]] = {}

    def state() -> dict[str, Any] | None:
        path = checkpoint.newest(work, log.warning)
        if path is None:
            return None
        saved = checkpoint.load(path, run.config.identity())
        read.update(saved.tensors)
        log.info("going on from %s", path)
        return saved.state

    found = distributed.from_main(state)
    if found is None:
        return None
    groups = distributed.from_main(lambda: list(read))
    device = run.learner.device
    return checkpoint.Checkpoint({g: distributed.tensors_from_main(read.get(g, {}), device) for g in groups}, found)


def _result(run: Run, seconds: float, resumed_at: int) -> TrainResult:
    run.learner.ema.module.load_state_dict(run.best_weights)
    return TrainResult(
        model=run.learner.ema.module.cpu(),
        rows=run.rows,
        best=run.best,
        steps=run.step,
        images_per_second=run.images / run.step_seconds if run.step_seconds else 0.0,
        seconds=seconds,
        resumed_at=resumed_at,
        device=describe(run.learner.device),
        dtype=str(run.learner.dtype or torch.float32).removeprefix("torch."),
        transfer=run.transfer,
    )
