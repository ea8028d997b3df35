"""The budget of a search, and how much of it remains while trainings run."""

import math
import time
from dataclasses import dataclass, field

from components.evolution.ledger import Ledger


@dataclass(frozen=True)
class Budget:
    """Limits for all trials together."""

    trials: int
    """Number of trials."""
    deadline: float
    """Unix time at which running trials are stopped and no more are started."""
    gpu_seconds: float = math.inf
    """Seconds of all trials, times the GPUs per trial."""

    @property
    def seconds_left(self) -> float:
        return self.deadline - time.time()


@dataclass(frozen=True)
class Resources:
    """What trials run on; fractions of CPUs and GPUs are allowed."""

    concurrent: int
    """Trials that run at once."""
    cpus: float = 1.0
    """Per trial."""
    gpus: float = 0.0
    """Per trial."""


@dataclass
class BudgetTracker:
    """Tracks the remaining budget while trainings run."""

    budget: Budget
    resources: Resources
    ledger: Ledger
    running: dict[str, float] = field(default_factory=dict)
    """Unix time at which each running training was started, under any unique name."""

    @property
    def seconds_left(self) -> float:
        """Until the minutes run out, or the GPU-hours with the maximum number of concurrent trainings."""
        if math.isinf(self.budget.gpu_seconds):
            return self.budget.seconds_left
        under_way = sum(time.time() - began for began in self.running.values())
        left = self.budget.gpu_seconds - self.resources.gpus * (self.ledger.seconds + under_way)
        return min(self.budget.seconds_left, left / (self.resources.gpus * self.resources.concurrent))

    def started(self, name: str) -> None:
        self.running[name] = time.time()

    def ended(self, name: str) -> None:
        self.running.pop(name, None)
