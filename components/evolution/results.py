"""The results of a search: the winner's values, the ledger, a plot of the fitness."""

import dataclasses
from pathlib import Path

from components import yaml_text
from components.evolution.ledger import Record
from components.evolution.setup import Search
from components.evolution.winner import evolved_values, start_fitness
from components.reports.fitness_plot import plot_fitness
from yolo_core.atomic import write_bytes
from yolo_core.evolution import Gain


def write_results(search: Search, best: Record | None, gained: Gain | None, out: Path) -> dict[str, object]:
    """Write hyp.yaml, ledger.jsonl and fitness.png to `out`; returns the main figures.

    best: the winner. gained: its confirmed gain, if requested and within the budget.
    """
    settings, records = search.settings, search.records
    start = start_fitness(records)
    top = max((record.fitness for record in records), default=None)
    holds = gained.holds if gained else not settings.confirm
    evolved = evolved_values(best, search.start) if best and holds else {}
    result = {
        "model": settings.model,
        "fitness": top,
        "start_fitness": start,
        "trials": len(records),
        "confirmed": gained and dataclasses.asdict(gained),
        "hyp": evolved,
    }
    ledger = search.ledger.path.read_bytes()
    _write(out, {"ledger.jsonl": ledger, "hyp.yaml": yaml_text.dump(result).encode()}, records)
    return {
        "trials": f"{len(records)} of {settings.trials}",
        "failed": sum(record.reason is not None for record in records),
        "fitness": "none" if start is None or top is None else f"{start:.4f} -> {top:.4f}",
        **({"confirmed": _verdict(best, gained)} if settings.confirm else {}),
        "evolved": len(evolved),
    }


def _verdict(best: Record | None, gained: Gain | None) -> str:
    if best is None:
        return "nothing to confirm"
    if gained is None:
        return "not within the budget"
    return f"{'yes' if gained.holds else 'no'}, gain {gained.gain:+.4f} with a spread of {gained.spread:.4f}"


def _write(out: Path, files: dict[str, bytes], records: list[Record]) -> None:
    """Write the files and the plot unless they are current: importing Matplotlib takes a good part of a second."""
    plot = out / "fitness.png"
    if plot.exists() and all(_content(out / name) == content for name, content in files.items()):
        return
    for name, content in files.items():
        write_bytes(out / name, content)
    plot_fitness(records, plot)


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None
