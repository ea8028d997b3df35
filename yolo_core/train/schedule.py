"""What the optimizer is told at each step: pure functions of the step, so resuming needs nothing but its number.

A step is one batch; an update is one optimizer step, made after `accumulate` batches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from yolo_core.hyperparameters import Hyperparameters


@dataclass(frozen=True)
class Phase:
    """A part of the training: until epoch `epochs`, counted from the very start, under `hyp`."""

    epochs: int
    hyp: Hyperparameters


@dataclass(frozen=True)
class Values:
    """The optimizer's settings at one step."""

    lr: float
    bias_lr: float
    momentum: float
    accumulate: int


@dataclass(frozen=True)
class Schedule:
    """Warm-up, then a cosine per phase.

    phases: one or more, each ending later than the one before. A later phase goes on from the epoch where the
        one before ended, on the cosine of its own, longer total (the two-stage recipe of arXiv 2011.08036).
    steps_per_epoch: batches in an epoch.
    batch, nominal_batch: images in a batch over all workers, and in an update.
    """

    phases: Sequence[Phase]
    steps_per_epoch: int
    batch: int
    nominal_batch: int

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
        """max(warmup_epochs, warmup_iterations), but never over half of the first phase: short runs learn too."""
        first = self.phases[0]
        asked = max(round(first.hyp.warmup_epochs * self.steps_per_epoch), int(first.hyp.warmup_iterations))
        return min(asked, first.epochs * self.steps_per_epoch // 2)

    def at(self, step: int) -> Values:
        """The settings at `step` (from 0)."""
        epoch = step // self.steps_per_epoch
        phase = self.phase_at(epoch)
        hyp = phase.hyp
        lr = hyp.lr0 * cosine(epoch, phase.epochs, hyp.lrf)
        full = full_accumulation(self.batch, self.nominal_batch)
        warmth = step / self.warmup_steps if self.warmup_steps else 1.0
        if warmth >= 1:
            return Values(lr, lr, hyp.momentum, full)
        return Values(
            lr=between(0.0, lr, warmth),
            bias_lr=between(hyp.warmup_bias_lr, lr, warmth),
            momentum=between(hyp.warmup_momentum, hyp.momentum, warmth),
            accumulate=max(1, round(between(1, self.nominal_batch / self.batch, warmth))),
        )

    def updates_at(self, step: int) -> bool:
        """Whether the optimizer steps after the batch of this step.

        A window that the end of the training cuts short is still applied.
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
    """decay x (1 - e^(-updates / tau)): a young average forgets fast."""
    return decay * (1 - math.exp(-updates / tau))
