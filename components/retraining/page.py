"""The decision of `retrain` as a Markdown page."""

from collections.abc import Mapping
from dataclasses import asdict

from components.retraining.decision import Decision


def page(decision: Decision) -> str:
    """The decision as Markdown: what, why, the numbers, and the thresholds they were compared with."""
    title = f"# {decision.model}: {decision.action}\n\n{decision.reason[0].upper()}{decision.reason[1:]}.\n"
    facts = [f"- champion: {'none' if decision.champion is None else f'version {decision.champion}'}"]
    if decision.champion is not None:
        facts.append(f"- changed besides the data: {_shown(decision.others)}")
    if decision.recall is not None:
        facts.append(f"- best possible recall of its anchors now: {decision.recall:.4f}")
    facts.append(f"- estimated cost: {decision.cost.text if decision.cost else 'nothing is trained'}")
    tables = [_table("Data", asdict(decision.diff))] if decision.diff else []
    tables.append(_table("Thresholds", decision.thresholds))
    return "\n".join([title, *facts, "", *tables])


def _table(name: str, rows: Mapping[str, object]) -> str:
    lines = [f"| {key.replace('_', ' ')} | {_shown(value)} |" for key, value in rows.items()]
    return "\n".join([f"| {name} | |", "|---|---|", *lines, ""])


def _shown(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
