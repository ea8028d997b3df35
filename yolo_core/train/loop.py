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
from yolo_core.train.hints import hints
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
from yolo_core.train.validation import epochs_without_gain, evaluate, keep_if_best

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
    early, as by `config.patience` and `config.max_minutes`: with the best weights so far.
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
    """Train to the last step, or to where `on_epoch` or a limit ends it. Raises TryAgain when stopped."""
    run.time_is_up = _time_is_up(run)
    if run.epoch_to_close or run.cut_short:  # the process before this one ended in its evaluation
        if _close_epoch(run):
            return
        if run.stop_requested:
            raise _stopped(run)
    elif run.rows and run.rows[-1]["AP"] is not None and _limit_reached(run):  # it ended after that
        return
    for batch in _reported(run, _batches(run), progress):
        run.alive()
        _step(run, batch)
        if run.step % CHECK_EVERY == 0:
            _check(run)
        run.stop_requested = run.stop_requested or _stop_requested(run)
        run.time_is_up = run.time_is_up or _time_is_up(run)
        if run.cut_short:  # with more time it would continue from here
            run.checkpoint_due = True
            _save_if_possible(run)
        if (run.epoch_to_close or run.cut_short) and not run.can_stop:
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


def _time_is_up(run: Run) -> bool:
    """The same answer on all workers, as rarely as `_stop_requested` on a GPU."""
    limit = run.config.max_minutes
    if limit is None or (run.learner.device.type != "cpu" and run.step % CHECK_EVERY):
        return False
    return distributed.any_of(run.seconds >= 60 * limit)


def _close_epoch(run: Run) -> bool:
    """Evaluate when it is time and add the epoch's row to the curves; whether the training ends here.

    When a stop is requested during the evaluation nothing else changes, and the epoch is still to be closed.
    """
    _check(run)
    ap = ap50 = None
    is_due = run.epoch % run.config.eval_every == 0 or run.step == run.schedule.steps or run.cut_short
    if is_due:
        figures = evaluate(run)
        if figures is None:
            run.stop_requested = True
            return False
        ap, ap50 = figures
        keep_if_best(run, run.epoch_of_row, ap, ap50)
    row = _row(run, ap, ap50)
    _report(run, row)
    run.sums = [0.0] * len(run.sums)
    run.epoch_pace = Pace()
    run.rows.append(row)
    if run.callbacks.on_epoch:
        ends_here = bool(run.callbacks.on_epoch(row))
        if ap is not None and distributed.any_of(ends_here) and run.step < run.schedule.steps:
            run.ended_by = "caller"
            return True
    return is_due and _limit_reached(run)


def _limit_reached(run: Run) -> bool:
    """Whether a limit ends the training with the latest row, which was evaluated; if so, its state is kept."""
    if not run.is_closed or run.step == run.schedule.steps:
        return False
    run.time_is_up = run.time_is_up or _time_is_up(run)
    if run.time_is_up:
        run.ended_by = "max_minutes"
    elif run.config.patience is not None and _epochs_without_gain(run) >= run.config.patience:
        run.ended_by = "patience"
    else:
        return False
    if run.step % run.schedule.steps_per_epoch == 0 and run.step > run.first_step:
        run.checkpoint_due = True
        _save_if_possible(run)
    return True


def _epochs_without_gain(run: Run) -> int:
    """Since the best evaluation, or since the current phase began."""
    ends = [phase.epochs for phase in run.config.phases if phase.epochs < run.rows[-1]["epoch"]]
    return epochs_without_gain(run.rows, since=max(ends, default=0))


def _row(run: Run, ap: float | None, ap50: float | None) -> EpochRow:
    steps = run.step % run.schedule.steps_per_epoch or run.schedule.steps_per_epoch
    box, obj, cls, loss = (total / steps for total in run.sums)
    lr = run.schedule.at(run.step - 1).lr
    return EpochRow(
        epoch=run.epoch_of_row, step=run.step, lr=lr, box=box, obj=obj, cls=cls, loss=loss, AP=ap, AP50=ap50
    )


def _report(run: Run, row: EpochRow) -> None:
    """Call `on_report` on the main worker, with the row that comes next in the curves."""
    if not (run.callbacks.on_report and distributed.is_main()):
        return
    done, pace = run.step - run.first_step, run.epoch_pace
    seconds_left = (time.monotonic() - run.began) / done * (run.schedule.steps - run.step) if done else None
    if seconds_left is not None and run.config.max_minutes is not None:
        seconds_left = max(0.0, min(seconds_left, 60 * run.config.max_minutes - run.seconds))
    run.callbacks.on_report(
        EpochReport(
            row=row,
            epochs=run.schedule.epochs,
            steps=run.schedule.steps,
            best=run.best,
            before=next((earlier for earlier in reversed(run.rows) if earlier["AP"] is not None), None),
            images_per_second=pace.images / pace.seconds if pace.seconds else None,
            seconds_left=seconds_left,
            memory_bytes=peak_memory(run.learner.device),
            hints=tuple(hints([*run.rows, row], run.config, run.schedule)),
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
