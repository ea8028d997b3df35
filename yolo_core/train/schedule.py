"""The optimizer's settings at each step: pure functions of the step, so resuming needs nothing but its number.

A step is one batch; an update is one optimizer step, made after `accumulate` batches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from yolo_core.hyperparameters import Hyperparameters


@dataclass(frozen=True)
class Phase:
    """A part of the training with its own hyperparameters."""

    epochs: int
    """The epoch it ends at, counted from the start of the training."""
    hyp: Hyperparameters


@dataclass(frozen=True)
class Values:
    """The optimizer's settings at one step."""

    lr: float
    bias_lr: float
    momentum: float
    accumulate: int
    """Batches per update."""
    simota: bool = True
    """Whether a loss with SimOTA selects among the candidates."""


@dataclass(frozen=True)
class Schedule:
    """Warm-up, then a cosine per phase.

    A later phase continues from the epoch where the one before ended, on the cosine of its own, longer total (the
    two-stage recipe of arXiv 2011.08036).
    """

    phases: Sequence[Phase]
    """One or more, each ending later than the one before."""
    steps_per_epoch: int
    batch: int
    """Images per step over all workers."""
    nominal_batch: int
    """Images per update of the weights."""

    @property
    def epochs(self) -> int:
        return self.phases[-1].epochs

    @property
    def steps(self) -> int:
        return self.epochs * self.steps_per_epoch

    def phase_at(self, epoch: int) -> Phase:
        """The phase that `epoch` (from 0) belongs to."""
        return next(phase for phase in self.phases if epoch < phase.epochs)

    @property
    def warmup_steps(self) -> int:
        """max(warmup_epochs, warmup_iterations), but at most half of the first phase: short runs learn too."""
        first = self.phases[0]
        steps = max(round(first.hyp.warmup_epochs * self.steps_per_epoch), int(first.hyp.warmup_iterations))
        return min(steps, first.epochs * self.steps_per_epoch // 2)

    def at(self, step: int) -> Values:
        """The settings at `step` (from 0)."""
        epoch = step // self.steps_per_epoch
        phase = self.phase_at(epoch)
        hyp = phase.hyp
        lr = hyp.lr0 * cosine(epoch, phase.epochs, hyp.lrf)
        full = full_accumulation(self.batch, self.nominal_batch)
        simota = epoch >= hyp.simota_from * phase.epochs
        warmth = step / self.warmup_steps if self.warmup_steps else 1.0
        if warmth >= 1:
            return Values(lr, lr, hyp.momentum, full, simota)
        return Values(
            lr=between(0.0, lr, warmth),
            bias_lr=between(hyp.warmup_bias_lr, lr, warmth),
            momentum=between(hyp.warmup_momentum, hyp.momentum, warmth),
            accumulate=max(1, round(between(1, self.nominal_batch / self.batch, warmth))),
            simota=simota,
        )

    def updates_at(self, step: int) -> bool:
        """Whether the optimizer steps after the batch of this step.

        An accumulation cut short by the end of the training is still applied.
        """
        return (step + 1) % self.at(step).accumulate == 0 or step + 1 == self.steps


def full_accumulation(batch: int, nominal_batch: int) -> int:
    """Batches per update after warm-up."""
    return max(1, round(nominal_batch / batch))


def cosine(epoch: int, epochs: int, last: float) -> float:
    """Half a cosine from 1 at epoch 0 to `last` at epoch `epochs`."""
    return (1 + math.cos(math.pi * epoch / epochs)) / 2 * (1 - last) + last


def between(start: float, end: float, fraction: float) -> float:
    """The point at `fraction` of the way from `start` to `end`."""
    return start + (end - start) * fraction


def ema_decay(updates: int, decay: float, tau: float) -> float:
    """decay x (1 - e^(-updates / tau)): early on the average follows the weights closely."""
    return decay * (1 - math.exp(-updates / tau))
