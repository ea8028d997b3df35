"""What a search may spend, and what is left of it while trainings run."""

import math
import time
from dataclasses import dataclass, field

from components.evolution.ledger import Ledger


@dataclass(frozen=True)
class Budget:
    """What all trials together may take."""

    trials: int
    """Trials in all."""
    deadline: float
    """Unix time at which those still running are stopped and no other starts."""
    gpu_seconds: float = math.inf
    """Seconds of all trials, each counted as many times as a trial holds GPUs."""

    @property
    def seconds_left(self) -> float:
        return self.deadline - time.time()


@dataclass(frozen=True)
class Resources:
    """What trials run on; fractions of processors and GPUs are allowed."""

    concurrent: int
    """Trials at a time."""
    cpus: float = 1.0
    """Of each trial."""
    gpus: float = 0.0
    """Of each trial."""


@dataclass
class BudgetTracker:
    """What is left of a budget while trainings run."""

    budget: Budget
    resources: Resources
    ledger: Ledger
    running: dict[str, float] = field(default_factory=dict)
    """Unix time at which each training under way was started, by any name."""

    @property
    def seconds_left(self) -> float:
        """Until the minutes are spent, or the GPU-hours with as many trainings at a time as there may be."""
        if math.isinf(self.budget.gpu_seconds):
            return self.budget.seconds_left
        under_way = sum(time.time() - began for began in self.running.values())
        left = self.budget.gpu_seconds - self.resources.gpus * (self.ledger.seconds + under_way)
        return min(self.budget.seconds_left, left / (self.resources.gpus * self.resources.concurrent))

    def started(self, name: str) -> None:
        self.running[name] = time.time()

    def ended(self, name: str) -> None:
        self.running.pop(name, None)
