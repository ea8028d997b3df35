"""The lines that a search prints when trainings end."""

import sys

from components.evolution.ledger import Confirmation, Record


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def trial_line(record: Record, ended: int, trials: int) -> str:
    origin = "the starting point" if record.parent is None else f"child of {record.parent}"
    stopped = "" if record.stopped_at is None else f", stopped after epoch {record.stopped_at}"
    return f"evolve: {ended}/{trials}, trial {record.trial}, {origin}: {_result(record)}{stopped}"


def confirmation_line(one: Confirmation) -> str:
    what = f"trial {one.confirms}" if one.confirms else "the starting point"
    return f"evolve: {what} at full length, seed {one.seed}: {_result(one)}"


def _result(one: Record | Confirmation) -> str:
    figures = one.reason or f"AP {one.AP:.4f}, AP50 {one.AP50:.4f}, fitness {one.fitness:.4f}"
    return f"{figures}, {one.seconds:.1f} s"
