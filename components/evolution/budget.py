"""The budget of a search, and how much of it remains while trainings run."""

import math
import time
from dataclasses import dataclass, field

from components.evolution.ledger import Ledger


@dataclass(frozen=True)
class Reserve:
    """What a search leaves of its budget for the checks of the winner."""

    trials: float = 0.0
    """Reserve in durations of the longest trial so far."""
    most: float = 0.0
    """Seconds: the limit of this."""


@dataclass(frozen=True)
class Budget:
    """Limits for all trainings together."""

    trials: int
    """Number of trials."""
    deadline: float
    """Unix time at which running trials are stopped and no more are started."""
    gpu_seconds: float = math.inf
    """Seconds of all trainings, times the GPUs per trial."""
    reserve: Reserve = Reserve()

    @property
    def seconds_left(self) -> float:
        return self.deadline - time.time()


@dataclass(frozen=True)
class Resources:
    """What trials run on; fractions of CPUs and GPUs are allowed."""

    concurrent: int
    """Trials that run at once."""
    cpus: float = 1.0
    """CPUs per trial."""
    gpus: float = 0.0
    """GPUs per trial."""


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
        return min(self.budget.seconds_left, self._gpu_seconds_left) - self._reserved

    @property
    def _gpu_seconds_left(self) -> float:
        if math.isinf(self.budget.gpu_seconds):
            return math.inf
        under_way = sum(time.time() - began for began in self.running.values())
        left = self.budget.gpu_seconds - self.resources.gpus * (self.ledger.seconds + under_way)
        return left / (self.resources.gpus * self.resources.concurrent)

    @property
    def _reserved(self) -> float:
        longest = max((record.seconds for record in self.ledger.records.values()), default=0.0)
        return min(self.budget.reserve.trials * longest, self.budget.reserve.most)

    def started(self, name: str) -> None:
        self.running[name] = time.time()

    def ended(self, name: str) -> None:
        self.running.pop(name, None)
