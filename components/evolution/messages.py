"""The lines that a search prints when trainings end, and its decision."""

import statistics
import sys

from components.evolution.adoption import MIN_GAIN, Gain
from components.evolution.ledger import Confirmation, Record

KEPT = "the starting point's hyperparameters are kept"


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def trial_line(record: Record, ended: int, trials: int) -> str:
    origin = "the starting point" if record.parent is None else f"child of {record.parent}"
    stopped = "" if record.stopped_at is None else f", stopped after epoch {record.stopped_at}"
    return f"evolve: {ended}/{trials}, trial {record.trial}, {origin}: {_result(record)}{stopped}"


def confirmation_line(one: Confirmation) -> str:
    return f"evolve: check of {_named(one.confirms)}, seed {one.seed}: {_result(one)}"


def lost_line(trial: int, seed: int, reason: str) -> str:
    return f"evolve: check of {_named(trial)}, seed {seed}: {reason}; the same command runs it again"


def decision(best: Record | None, start: float | None, gained: Gain | None) -> str:
    """Whether the best trial's values are adopted, and why. best: None if it does not clearly beat the start."""
    if start is None:
        return f"the starting point was not trained; {KEPT}"
    if best is None:
        return f"no trial beat the starting point's {start:.4f} by {MIN_GAIN:g}; {KEPT}"
    first = f"trial {best.trial} scored {best.fitness:.4f}, the starting point {start:.4f}"
    if gained is None:
        return f"{first}; its checks with other seeds did not finish; {KEPT}"
    repeated = f"with {len(gained.start)} other seeds {_spread(gained.winner)} and {_spread(gained.start)}"
    if gained.holds:
        return f"{first}; {repeated}: beyond the spread; the trial's hyperparameters are adopted"
    return f"{first}; {repeated}: within the spread; {KEPT}"


def _spread(fitness: list[float]) -> str:
    return f"{statistics.fmean(fitness):.4f} +- {statistics.stdev(fitness):.4f}"


def _named(trial: int) -> str:
    return f"trial {trial}" if trial else "the starting point"


def _result(one: Record | Confirmation) -> str:
    figures = one.reason or f"AP {one.AP:.4f}, AP50 {one.AP50:.4f}, fitness {one.fitness:.4f}"
    return f"{figures}, {one.seconds:.1f} s"
