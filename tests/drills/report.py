"""The results of the drills, as the table of docs/reliability.md."""

from dataclasses import dataclass
from pathlib import Path

from yolo_core.atomic import write_text

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- drills: written by make drills -->", "<!-- end of drills -->"
HEAD = ("drill", "what happens", "lost", "repeated", "to recover")


@dataclass(frozen=True)
class Found:
    """The cost of a fault. seconds: until the work was further along than before; None if it never stopped."""

    repeated: str
    seconds: float | None = None


class Lost(Exception):
    """Something differs from an undisturbed run."""


class Skipped(Exception):
    """The drill cannot run on this machine."""


def row(name: str, fault: str, found: Found) -> str:
    """The table row of a drill that lost nothing."""
    return _line(
        name, fault, "nothing", found.repeated, "at once" if found.seconds is None else f"{found.seconds:.0f} s"
    )


def write(rows: dict[str, str], order: list[str], page: Path = PAGE) -> None:
    """Put these rows into the page's table, in that order; rows of other drills are kept."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    table, _, after = rest.partition(END)
    kept = {_name(line): line for line in table.splitlines() if line.startswith("| ") and _name(line) in order}
    lines = {**kept, **rows}
    body = [_line(*HEAD), "|---" * len(HEAD) + "|", *(lines[name] for name in order if name in lines)]
    write_text(page, before + "\n".join([BEGIN, *body, END]) + after)


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _name(line: str) -> str:
    return line.split("|")[1].strip()
