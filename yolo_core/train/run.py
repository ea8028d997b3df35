"""A training under way: its start from fresh or given weights, its state, and the result it ends with."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from yolo_core.data.coco import DetectionDataset
from yolo_core.data.loader import TrainBatches, train_batches
from yolo_core.device import autocast_dtype, describe
from yolo_core.errors import BadArgument, UserError
from yolo_core.losses.class_weights import class_weights
from yolo_core.models import Detector, build_model, get_spec
from yolo_core.models.weights import load_detector
from yolo_core.train import distributed
from yolo_core.train.configuration import TrainConfig
from yolo_core.train.records import Best, Callbacks, EndedBy, EpochRow, Pace, TrainResult
from yolo_core.train.schedule import Schedule
from yolo_core.train.step import LOSSES, Learner, StepConfig
from yolo_core.train.transfer import Transfer, freeze, take_over

log = logging.getLogger(__name__)


@dataclass
class Run:
    """A training under way. What changes from step to step is here, and in the checkpoints."""

    config: TrainConfig
    train_set: DetectionDataset
    val_set: DetectionDataset
    callbacks: Callbacks
    work: Path | None
    """Folder of the checkpoints; None for none."""
    alive: Callable[[], None]
    """Heartbeat callback; see `yolo_core.train.stall`."""
    schedule: Schedule
    learner: Learner
    transfer: Transfer | None

    step: int = 0
    """Steps done."""
    sums: list[float] = field(default_factory=lambda: [0.0] * (len(LOSSES) + 1))
    """Losses of the epoch so far, added up."""
    rows: list[EpochRow] = field(default_factory=list)
    best: Best | None = None
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    images: int = 0
    """Images trained on, over all workers."""
    step_seconds: float = 0.0
    """Time in steps, in waiting for their batches and for the device."""

    began: float = field(default_factory=time.monotonic)
    """When this process began, on the monotonic clock."""
    first_step: int = 0
    """The step that it began with."""
    seconds_before: float = 0.0
    """What the processes before this one took until their checkpoints."""
    epoch_pace: Pace = field(default_factory=Pace)
    """Of this process since the last row."""
    unchecked: list[Tensor] = field(default_factory=list)
    """Losses (4,) of the latest steps, still on the device."""
    pace: Pace = field(default_factory=Pace)
    """Since the last look at the losses that was reported."""
    at_update: bool = True
    """Whether the latest step updated the weights: between updates a checkpoint would lack the gradients."""
    stop_requested: bool = False
    """Whether any worker received a request to stop: the training ends as soon as it can be resumed from there."""
    time_is_up: bool = False
    """Whether `max_minutes` have passed on any worker."""
    checkpoint_due: bool = False
    """Whether the next update of the weights is followed by a checkpoint."""
    ended_by: EndedBy = "epochs"

    @property
    def epoch(self) -> int:
        return self.step // self.schedule.steps_per_epoch

    @property
    def epoch_of_row(self) -> int:
        """The number of the epoch that the latest step belongs to, from 1."""
        return -(-self.step // self.schedule.steps_per_epoch)

    @property
    def seconds(self) -> float:
        """Time of this process and of those before it."""
        return self.seconds_before + time.monotonic() - self.began

    @property
    def is_closed(self) -> bool:
        """Whether the row of the latest step is in the curves."""
        return bool(self.rows) and self.rows[-1]["step"] == self.step

    @property
    def cut_short(self) -> bool:
        """Whether the training ends with this step, before its last one, because the time is up."""
        unfinished = 0 < self.step < self.schedule.steps
        return self.time_is_up and self.at_update and unfinished and not self.is_closed

    @property
    def epoch_to_close(self) -> bool:
        """Whether an epoch's last step is done, and its evaluation and row are not."""
        return self.step % self.schedule.steps_per_epoch == 0 and len(self.rows) < self.epoch

    @property
    def can_stop(self) -> bool:
        """Whether a stop was requested and loses nothing now."""
        return self.stop_requested and (self.at_update or self.work is None)

    def took(self, seconds: float) -> None:
        self.step_seconds += seconds
        for pace in (self.pace, self.epoch_pace):
            pace.seconds += seconds

    def learned(self, images: int) -> None:
        self.images += images
        for pace in (self.pace, self.epoch_pace):
            pace.images += images


def start(
    config: TrainConfig,
    train_set: DetectionDataset,
    val_set: DetectionDataset,
    device: torch.device,
    callbacks: Callbacks,
    work: Path | None,
    alive: Callable[[], None],
) -> Run:
    """The state of step 0, with fresh weights or those of another detector."""
    _check_fit(config, train_set)
    train_set = _repeated(config, train_set)
    model = build_model(config.model, len(train_set.classes), config.width, config.depth, config.anchors)
    model.body.checkpointing = config.checkpointing
    taken = _take_over(config, model, train_set.classes) if config.start_from else None
    step_config = StepConfig(
        phases=config.phases,
        size=config.size,
        batch=config.batch,
        nominal_batch=config.nominal_batch,
        device=device,
        dtype=autocast_dtype(device, config.precision),
        sync_bn=config.sync_bn,
        compile=config.compile,
        dynamic=config.multi_scale,
        class_weights=_class_weights(config, train_set),
        ema_decay=config.ema_decay,
        ema_tau=config.ema_tau,
    )
    learner = Learner(model, step_config, frozen=freeze(model, config.freeze))
    steps_per_epoch = len(epoch_batches(config, train_set, epoch=0, start_step=0))
    schedule = Schedule(config.phases, steps_per_epoch, config.batch, config.nominal_batch)
    return Run(config, train_set, val_set, callbacks, work, alive, schedule, learner, taken)


def _check_fit(config: TrainConfig, train_set: DetectionDataset) -> None:
    if not len(train_set):
        raise UserError("the training split has no images; check the prepared dataset and its quarantine report")
    if config.batch % distributed.world():
        raise BadArgument(
            "batch", f"= {config.batch}: must be a multiple of the number of workers, {distributed.world()}"
        )


def _repeated(config: TrainConfig, train_set: DetectionDataset) -> DetectionDataset:
    """The training split with its repeat factors, if they are asked for."""
    if config.repeat_factor is None:
        return train_set
    train_set.open_cache(config.size)  # before it is copied: trainings one after the other share it
    train_set = train_set.repeated(config.repeat_factor)
    if train_set.repeats and distributed.is_main():
        samples, images = train_set.repeats.samples, len(train_set)
        log.info("repeat_factor = %g: an epoch draws %d samples from %d images", config.repeat_factor, samples, images)
    return train_set


def _class_weights(config: TrainConfig, train_set: DetectionDataset) -> list[float] | None:
    """The weight of each class, if weights are asked for."""
    if config.class_weights is None:
        return None
    weights = class_weights(config.class_weights, train_set.classes, train_set.labels)
    if distributed.is_main():
        low, high = int(np.argmin(weights)), int(np.argmax(weights))
        smallest, largest = (f"{weights[i]:.3g} ({train_set.classes[i]})" for i in (low, high))
        log.info("class_weights: from %s to %s", smallest, largest)
    return weights


def _take_over(config: TrainConfig, model: Detector, classes: list[str]) -> Transfer:
    """Start from other weights, and say which of them were taken over."""
    try:
        taken = take_over(model, load_detector(Path(config.start_from)), classes)
    except UserError as error:
        raise UserError(f"{config.start_from}: {error}") from None
    if distributed.is_main():
        log.info("%s: %s", config.start_from, taken)
    return taken


def epoch_batches(config: TrainConfig, train_set: DetectionDataset, epoch: int, start_step: int) -> TrainBatches:
    """This worker's batches of one epoch, from its step `start_step` on."""
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


def result(run: Run, seconds: float) -> TrainResult:
    """The best average weights and how they came about."""
    assert run.best, "no epoch was evaluated"
    run.learner.ema.module.load_state_dict(run.best_weights)
    return TrainResult(
        model=run.learner.ema.module.cpu(),
        rows=run.rows,
        best=run.best,
        steps=run.step,
        ended_by=run.ended_by,
        images_per_second=run.images / run.step_seconds if run.step_seconds else 0.0,
        seconds=seconds,
        resumed_at=run.first_step,
        device=describe(run.learner.device),
        dtype=str(run.learner.dtype or torch.float32).removeprefix("torch."),
        transfer=run.transfer,
    )
