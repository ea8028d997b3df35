"""`python -m benchmarks.page`: write the newest figures of every row into docs/performance.md.

The page's text is written by hand. Between `<!-- row: NAME -->` and `<!-- end -->` stands a table generated from that
row's line in `benchmarks/results.jsonl`.
"""

import json
import re
from pathlib import Path

from benchmarks.report import RESULTS, JudgedGoal, Line

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
TABLE = re.compile(r"<!-- row: (?P<row>\S+) -->\n.*?<!-- end -->", re.DOTALL)


def main() -> None:
    lines: dict[str, Line] = {line["row"]: line for line in map(json.loads, RESULTS.read_text().splitlines())}
    text = PAGE.read_text()
    shown = {match["row"] for match in TABLE.finditer(text)}
    if shown != lines.keys():
        unknown, absent = sorted(shown - lines.keys()), sorted(lines.keys() - shown)
        raise SystemExit(f"error: {PAGE.name}: rows without figures {unknown}, figures without a row {absent}")
    PAGE.write_text(
        TABLE.sub(lambda match: f"<!-- row: {match['row']} -->\n{_section(lines[match['row']])}<!-- end -->", text)
    )


def _section(line: Line) -> str:
    """The table of one row, its goals and the command that measured it."""
    names = list(line["ours"])
    rows = [["", *names], ["---"] * (len(names) + 1)]
    for peer, figures in {line.get("contender", "ours"): line["ours"], **line["peers"]}.items():
        if "missing" in figures:
            rows.append([peer, f"not run: {figures['missing']}", *[""] * (len(names) - 1)])
        else:
            rows.append([peer, *(_number(figures.get(name)) for name in names)])
    table = "".join(f"| {' | '.join(cells)} |\n" for cells in rows)
    facts = "".join(f"{key.replace('_', ' ')}: {_fact(value)}. " for key, value in line.items() if key not in KNOWN)
    goals = "".join(f"- {_goal(goal)}\n" for goal in line["goals"])
    return f"\n{table}\n{goals}- `{line['command']}`, {line['machine']['device']}. {facts}".rstrip() + "\n\n"


KNOWN = {"row", "command", "contender", "ours", "peers", "goals", "machine"}


def _goal(goal: JudgedGoal) -> str:
    """One goal in words, and whether it was reached."""
    bound = {"more": "at least", "less": "at most"}[goal["better"]]
    wanted = [f"{bound} {_number(goal['value'])} {goal['unit']}"] if goal["value"] is not None else []
    wanted += [f"{goal['ratio']:g} times"] if goal["ratio"] is not None else []
    times = f", {goal['times']:.2f} times {goal['against']}" if goal["times"] is not None else ""
    found = f"{goal['figure']}: {_number(goal['ours'])} {goal['unit']}{times}"
    if not wanted:
        return found
    return f"{found}; goal: {' and '.join(wanted)}; {'reached' if goal['reached'] else '**not reached**'}"


def _fact(value: object) -> str:
    """A fact about a row: a word, a number, a list or several by name."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_fact(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return " / ".join(map(_fact, value))
    return _number(value) if isinstance(value, float) else str(value)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    if value and abs(value) < 1e-3:
        return f"{value:.1e}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


if __name__ == "__main__":
    main()
