"""The results of a search: the winner's values, the ledger, a plot of the fitness."""

from dataclasses import asdict
from pathlib import Path

from components import yaml_text
from components.evolution.adoption import Gain
from components.evolution.ledger import Record
from components.evolution.messages import decision, say
from components.evolution.setup import Search
from components.evolution.winner import evolved_values, start_fitness
from components.files import FITNESS_PLOT, HYP, LEDGER
from components.reports.fitness_plot import Repeats, plot_fitness
from yolo_core.atomic import write_bytes


def write_results(search: Search, best: Record | None, gained: Gain | None, out: Path) -> dict[str, object]:
    """Write hyp.yaml, ledger.jsonl and fitness.png to `out`; returns the main figures.

    best: the winner. gained: its gain in the repeated trainings; None if they are not complete.
    """
    settings, records = search.settings, search.records
    start = start_fitness(records)
    top = max((record.fitness for record in records), default=None)
    evolved = evolved_values(best, search.start) if best and gained and gained.holds else {}
    decided = decision(best, start, gained)
    result = {
        "model": settings.model,
        "fitness": top,
        "start_fitness": start,
        "trials": len(records),
        "confirmed": gained and asdict(gained),
        "decision": decided,
        "hyp": evolved,
    }
    ledger = search.ledger.path.read_bytes()
    repeats = _repeats(search, best, gained) if best and gained else None
    _write(out, {LEDGER: ledger, HYP: yaml_text.dump(result).encode()}, records, repeats)
    say(f"evolve: {decided}")
    return {
        "trials": f"{len(records)} of {settings.trials}",
        "failed": sum(record.reason is not None for record in records),
        "fitness": "none" if start is None or top is None else f"{start:.4f} -> {top:.4f}",
        "confirmed": _verdict(best, gained),
        "evolved": len(evolved),
    }


def _verdict(best: Record | None, gained: Gain | None) -> str:
    if best is None:
        return "nothing to confirm"
    if gained is None:
        return "not finished"
    return f"{'yes' if gained.holds else 'no'}, gain {gained.gain:+.4f}, spread of the start {gained.spread:.4f}"


def _repeats(search: Search, best: Record, gained: Gain) -> Repeats:
    return Repeats(best.trial, gained.start, gained.winner, as_trials=search.settings.confirm.epochs == "trial")


def _write(out: Path, files: dict[str, bytes], records: list[Record], repeats: Repeats | None) -> None:
    """Write the files and the plot unless they are current: importing Matplotlib takes a good part of a second."""
    plot = out / FITNESS_PLOT
    if plot.exists() and all(_content(out / name) == content for name, content in files.items()):
        return
    for name, content in files.items():
        write_bytes(out / name, content)
    plot_fitness(records, plot, repeats)


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None
