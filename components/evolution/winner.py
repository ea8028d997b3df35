"""Which trial wins a search, and with which values."""

from components.evolution.adoption import MIN_GAIN
from components.evolution.ledger import Record
from yolo_core.evolution import EVOLVING
from yolo_core.hyperparameters import Hyperparameters


def start_fitness(records: list[Record]) -> float | None:
    """Fitness of the starting point; None before it has run."""
    return next((record.fitness for record in records if record.trial == 0), None)


def winner(records: list[Record]) -> Record | None:
    """The best trial; None if it does not beat the start by `MIN_GAIN`. One stopped by halving cannot win."""
    start = start_fitness(records)
    whole = [record for record in records if record.stopped_at is None]
    best = max(whole, key=lambda record: (record.fitness, -record.trial), default=None)
    return best if best and start is not None and best.fitness - start >= MIN_GAIN else None


def evolved_values(best: Record, start: Hyperparameters) -> dict[str, float]:
    """The values in which a trial differs from the starting point."""
    return {name: best.hyp[name] for name in EVOLVING if best.hyp[name] != getattr(start, name)}
