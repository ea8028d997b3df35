"""The training loop: `fit` takes a configuration and two splits and gives the trained detector.

On the CPU with one worker the result is a pure function of the configuration and the data, whether or not the
process was killed on the way: whatever the loop carries from step to step is in its checkpoints.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from yolo_core.data.coco import DetectionDataset
from yolo_core.data.loader import Batch
from yolo_core.device import peak_memory, pick_device
from yolo_core.errors import Diverged, TryAgain
from yolo_core.progress import Progress, silent
from yolo_core.train import distributed
from yolo_core.train.configuration import TrainConfig
from yolo_core.train.records import (
    Callbacks,
    EpochReport,
    EpochRow,
    OnEpoch,
    OnLog,
    OnReport,
    OnSave,
    Pace,
    ShouldStop,
    TrainResult,
)
from yolo_core.train.resume import resume, save
from yolo_core.train.run import Run, epoch_batches, result, start
from yolo_core.train.stall import watched
from yolo_core.train.step import LOSSES, reproducible
from yolo_core.train.validation import evaluate, keep_if_best

CHECK_EVERY = 10  # steps between readings of the losses: each one waits for the device


def fit(
    config: TrainConfig,
    train_set: DetectionDataset,
    val_set: DetectionDataset,
    *,
    work: Path | None = None,
    on_log: OnLog | None = None,
    on_epoch: OnEpoch | None = None,
    on_report: OnReport | None = None,
    on_save: OnSave | None = None,
    should_stop: ShouldStop = lambda: False,
    progress: Progress = silent,
) -> TrainResult:
    """Train, resuming from the newest intact checkpoint in `work` when there is one.

    work: folder of the checkpoints, None for none; only the main worker's is used.
    on_log(step, losses, pace), on_report(report) and on_save(path of the checkpoint) are called on the main worker,
    on_epoch(row) on every one; where that returns True on one worker after an evaluation, the training is finished
    early.
    should_stop: called on every worker at each step and each batch of an evaluation; one True is enough. The
    training then ends at the next update of the weights, with a checkpoint; without a work folder it ends at once.
    Raises UserError for settings that do not fit the data or machine, Diverged when the loss is no longer finite,
    TryAgain when it was stopped.
    """
    began = time.monotonic()
    device = pick_device(config.device)
    callbacks = Callbacks(on_log, on_epoch, on_report, on_save, should_stop)
    with reproducible(config.seed, device), watched(config.stall_limit_s) as alive:
        run = start(config, train_set, val_set, device, callbacks, work, alive)
        if work:
            resume(run, work)
        run.first_step = run.step
        _train(run, progress)
    return result(run, time.monotonic() - began)


def _train(run: Run, progress: Progress) -> None:
    """Train to the last step, or to the epoch where `on_epoch` ends it. Raises TryAgain when stopped."""
    if run.epoch_to_close:  # the process before this one ended in its evaluation
        if _close_epoch(run):
            return
        if run.stop_requested:
            raise _stopped(run)
    for batch in _reported(run, _batches(run), progress):
        run.alive()
        _step(run, batch)
        if run.step % CHECK_EVERY == 0:
            _check(run)
        run.stop_requested = run.stop_requested or _stop_requested(run)
        if run.epoch_to_close and not run.can_stop:
            if _close_epoch(run):
                return
            run.checkpoint_due = True
        if run.stop_requested or run.step % run.config.checkpoint_every == 0:
            run.checkpoint_due = True
        _save_if_possible(run)
        if run.can_stop or (run.stop_requested and run.epoch_to_close):
            raise _stopped(run)


def _reported(run: Run, batches: Iterator[Batch], progress: Progress) -> Iterator[Batch]:
    """One report for the whole training, on the main worker."""
    report = progress if distributed.is_main() else silent
    return report(batches, f"train {run.config.model}", run.schedule.steps - run.step)


def _batches(run: Run) -> Iterator[Batch]:
    """The batches from the run's step to the end, epoch after epoch."""
    while run.step < run.schedule.steps:
        start_step = run.step % run.schedule.steps_per_epoch
        batches = iter(epoch_batches(run.config, run.train_set, run.epoch, start_step))
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


def _step(run: Run, batch: Batch) -> None:
    """Learn from one batch. Nothing here waits for the device."""
    began = time.monotonic()
    run.at_update = run.schedule.updates_at(run.step)
    phase, values = run.schedule.phase_at(run.epoch), run.schedule.at(run.step)
    run.unchecked.append(run.learner.learn(batch, phase, values, run.at_update))
    run.step += 1
    run.learned(len(batch.images) * distributed.world())
    run.took(time.monotonic() - began)


def _check(run: Run, report: bool = True) -> None:
    """Look at the losses since the last look: add them to the epoch's sums, raise Diverged when one is not finite."""
    if not run.unchecked:
        return
    began = time.monotonic()
    losses = distributed.mean(torch.stack(run.unchecked)).tolist()
    run.took(time.monotonic() - began)
    first = run.step - len(losses)
    run.unchecked.clear()
    for offset, values in enumerate(losses):
        if not all(map(math.isfinite, values)):
            raise _diverged(run, first + offset)
        run.sums = [total + value for total, value in zip(run.sums, values, strict=True)]
    if report and run.callbacks.on_log and distributed.is_main():
        named = dict(zip((*LOSSES, "loss"), losses[-1], strict=True))
        run.callbacks.on_log(run.step, {**named, "lr": run.schedule.at(run.step - 1).lr}, run.pace)
        run.pace = Pace()


def _diverged(run: Run, step: int) -> Diverged:
    epoch = step // run.schedule.steps_per_epoch
    hyp = run.schedule.phase_at(epoch).hyp
    return Diverged(
        f"{run.config.model}: the loss is not finite at step {step} (epoch {epoch}); "
        f"lower train.hyp.lr0 (now {hyp.lr0:g}) or lengthen the warm-up (train.hyp.warmup_epochs)"
    )


def _stop_requested(run: Run) -> bool:
    """The same answer on all workers. On a GPU it is not checked at every step, since that waits for the device."""
    if run.learner.device.type != "cpu" and run.step % CHECK_EVERY:
        return False
    return distributed.any_of(run.callbacks.should_stop())


def _close_epoch(run: Run) -> bool:
    """Evaluate when it is time and add the epoch's row to the curves; whether `on_epoch` ends the training here.

    When a stop is requested during the evaluation nothing else changes, and the epoch is still to be closed.
    """
    _check(run)
    ap = ap50 = None
    if run.epoch % run.config.eval_every == 0 or run.step == run.schedule.steps:
        figures = evaluate(run)
        if figures is None:
            run.stop_requested = True
            return False
        ap, ap50 = figures
        keep_if_best(run, run.epoch, ap, ap50)
    row = _row(run, ap, ap50)
    _report(run, row)
    run.sums = [0.0] * len(run.sums)
    run.epoch_pace = Pace()
    run.rows.append(row)
    if not run.callbacks.on_epoch:
        return False
    ends_here = bool(run.callbacks.on_epoch(row))
    return ap is not None and distributed.any_of(ends_here)


def _row(run: Run, ap: float | None, ap50: float | None) -> EpochRow:
    box, obj, cls, loss = (total / run.schedule.steps_per_epoch for total in run.sums)
    lr = run.schedule.at(run.step - 1).lr
    return EpochRow(epoch=run.epoch, step=run.step, lr=lr, box=box, obj=obj, cls=cls, loss=loss, AP=ap, AP50=ap50)


def _report(run: Run, row: EpochRow) -> None:
    """Tell the main worker's caller of the epoch that this row, the next of the curves, is about."""
    if not (run.callbacks.on_report and distributed.is_main()):
        return
    done, pace = run.step - run.first_step, run.epoch_pace
    seconds_per_step = (time.monotonic() - run.began) / done if done else None
    run.callbacks.on_report(
        EpochReport(
            row=row,
            epochs=run.schedule.epochs,
            steps=run.schedule.steps,
            best=run.best,
            before=next((earlier for earlier in reversed(run.rows) if earlier["AP"] is not None), None),
            images_per_second=pace.images / pace.seconds if pace.seconds else None,
            seconds_left=None if seconds_per_step is None else seconds_per_step * (run.schedule.steps - run.step),
            memory_bytes=peak_memory(run.learner.device),
        )
    )


def _save_if_possible(run: Run) -> None:
    """Write the checkpoint that is due, once the weights are updated: before, there would be gradients to keep too."""
    if run.work and run.checkpoint_due and run.at_update:
        _check(run, report=False)
        save(run, run.work)
        run.checkpoint_due = False


def _stopped(run: Run) -> TryAgain:
    """The end of a training that was stopped on request, once the main worker has written its files."""
    distributed.barrier()
    line = f"{run.config.model}: training stopped on request at step {run.step} of {run.schedule.steps}"
    return TryAgain(f"{line}; the same command continues from its last checkpoint" if run.work else line)
