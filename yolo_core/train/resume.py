"""The checkpoints of a run: what is written so that it continues bit for bit, and how it is put back."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import NotRequired, TypedDict, cast

from torch import Tensor

from yolo_core.train import checkpoint, distributed, optim
from yolo_core.train.checkpoint import RandomState
from yolo_core.train.records import Best, EpochRow
from yolo_core.train.run import Run

log = logging.getLogger(__name__)


class _Sampler(TypedDict):
    epoch: int
    batch: int


class RunState(TypedDict):
    """Everything that is not a tensor. The schedule follows from the step; its values are here for information."""

    updates: int
    sampler: _Sampler
    schedule: dict[str, float]
    scaler: dict[str, object]
    sums: list[float]
    rows: list[EpochRow]
    best: Best | dict[str, object]  # {} before the first evaluation
    random: list[RandomState]
    images: int
    step_seconds: float
    seconds: NotRequired[float]  # checkpoints of earlier versions lack it


class _SavedState(RunState):
    step: int  # added by `checkpoint.save`


def save(run: Run, work: Path) -> None:
    """Write a checkpoint; every worker gives its random state, the main one writes. No step is unchecked."""
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
        if run.callbacks.on_save:
            run.callbacks.on_save(path)


def _state(run: Run, random_states: list[RandomState]) -> RunState:
    return {
        "updates": run.learner.updates,
        "sampler": {"epoch": run.epoch, "batch": run.step % run.schedule.steps_per_epoch},
        "schedule": dataclasses.asdict(run.schedule.at(min(run.step, run.schedule.steps - 1))),
        "scaler": run.learner.scaler.state_dict(),
        "sums": run.sums,
        "rows": run.rows,
        "best": run.best or {},
        "random": random_states,
        "images": run.images,
        "step_seconds": run.step_seconds,
        "seconds": run.seconds,
    }


def resume(run: Run, work: Path) -> None:
    """Restore the run from the newest intact checkpoint; without one it is unchanged."""
    found = _newest(run, work)
    if found is None:
        return
    tensors, state = found.tensors, cast(_SavedState, found.state)
    run.learner.model.load_state_dict(tensors["model"])
    run.learner.ema.module.load_state_dict(tensors["ema"])
    optim.load_momentum(run.learner.optimizer, run.learner.model, tensors.get("momentum", {}))
    run.learner.scaler.load_state_dict(state["scaler"])
    run.best_weights = tensors.get("best", {})
    run.step, run.learner.updates = state["step"], state["updates"]
    run.sums, run.rows, run.best = state["sums"], state["rows"], cast(Best, state["best"]) or None
    run.images, run.step_seconds = state["images"], state["step_seconds"]
    run.seconds_before = state.get("seconds", state["step_seconds"])
    random_states = state["random"]
    checkpoint.set_random_state(random_states[distributed.rank() % len(random_states)])


def _newest(run: Run, work: Path) -> checkpoint.Checkpoint | None:
    """The newest intact checkpoint, None without one: read by the main worker and sent to the others."""
    read: dict[str, dict[str, Tensor]] = {}

    def state() -> dict[str, object] | None:
        path = checkpoint.newest(work, log.warning)
        if path is None:
            return None
        saved = checkpoint.load(path, run.config.identity())
        read.update(saved.tensors)
        log.info("resuming from %s", path)
        return saved.state

    found = distributed.from_main(state)
    if found is None:
        return None
    groups = distributed.from_main(lambda: list(read))
    device = run.learner.device
    return checkpoint.Checkpoint({g: distributed.tensors_from_main(read.get(g, {}), device) for g in groups}, found)
