"""What drills found, as the table of docs/reliability.md."""

from dataclasses import dataclass
from pathlib import Path

from yolo_core.atomic import write_text

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- drills: written by make drills -->", "<!-- end of drills -->"
HEAD = ("drill", "what happens", "lost", "repeated", "to recover")


@dataclass(frozen=True)
class Found:
    """What a drill cost. seconds: until the work was further than before the fault, None where it never stood still."""

    repeated: str
    seconds: float | None = None


class Lost(Exception):
    """Something is not as it would have been without the fault."""


class Skipped(Exception):
    """The drill cannot be held here."""


def row(name: str, fault: str, found: Found) -> str:
    """The line of a drill that lost nothing."""
    return _line(
        name, fault, "nothing", found.repeated, "at once" if found.seconds is None else f"{found.seconds:.0f} s"
    )


def write(rows: dict[str, str], order: list[str], page: Path = PAGE) -> None:
    """Put these lines into the page's table, in that order; those of other drills stay."""
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
