"""What a file of evolved hyperparameters says of its search, for the records of a run."""

from dataclasses import dataclass
from pathlib import Path

from components import yaml_text


@dataclass(frozen=True)
class SearchRecord:
    """The main figures and the decision; those missing from the file (e.g. a handwritten one) are omitted."""

    figures: dict[str, float]
    decision: str | None
    """Whether the best trial was adopted, and why."""


def search_record(hyp: Path) -> SearchRecord:
    """The record in a hyp.yaml. Raises UserError if it is not YAML."""
    values = yaml_text.parse(hyp.read_text(encoding="utf-8"), str(hyp))
    values = values if isinstance(values, dict) else {}
    confirmed = values.get("confirmed")
    confirmed = confirmed if isinstance(confirmed, dict) and "start" in confirmed else {}
    found = {
        "fitness": values.get("fitness"),
        "start_fitness": values.get("start_fitness"),
        "start_spread": confirmed.get("spread"),
        "gain": confirmed.get("gain"),
    }
    figures = {name: float(value) for name, value in found.items() if isinstance(value, int | float)}
    decision = values.get("decision")
    return SearchRecord(figures, decision if isinstance(decision, str) else None)
