"""A published figure beside ours: its mark, its cells in a table, and the sections that group them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Origin = Literal["counted", "derived", "measured"]
MARKS = ("reproduced", "derived", "needs a GPU", "differs")
CLOSE = 1e-3  # of the published figure: allows the last digit to differ, e.g. by whether an addition is counted


@dataclass(frozen=True)
class Figure:
    """A published figure and ours, which is None if it takes training or timing to tell.

    origin: counted on a graph, derived by arithmetic from other published figures, or measured by the authors.
    """

    what: str
    printed: float | tuple[int, ...]
    here: float | tuple[int, ...] | None
    origin: Origin

    @property
    def digits(self) -> int:
        """Number of published decimals."""
        return len(str(self.printed).partition(".")[2]) if isinstance(self.printed, float) else 0

    @property
    def exact(self) -> bool:
        """Whether ours matches every published digit."""
        if isinstance(self.here, tuple) or self.here is None:
            return self.here == self.printed
        return round(self.here, self.digits) == self.printed

    @property
    def mark(self) -> str:
        if self.here is None:
            return "needs a GPU"
        if self.exact or abs(self.difference) <= CLOSE * abs(number(self.printed)):
            return "reproduced" if self.origin == "counted" else "derived"
        return "**differs**"

    @property
    def difference(self) -> float:
        return number(self.here) - number(self.printed)

    def cells(self) -> tuple[str, ...]:
        """Published figure, ours, difference, mark."""
        if isinstance(self.printed, tuple):
            here = "-".join(map(str, self.here)) if isinstance(self.here, tuple) else ""
            return "-".join(map(str, self.printed)), here, "", self.mark
        printed = f"{self.printed:.{self.digits}f}"
        if self.here is None:
            return printed, "", "", self.mark
        digits = min(self.digits + 1, 7)
        difference = f"{self.difference:+.{digits}f}"
        return printed, f"{number(self.here):.{digits}f}", "0" if float(difference) == 0 else difference, self.mark


def number(value: float | tuple[int, ...] | None) -> float:
    return float("nan") if value is None or isinstance(value, tuple) else value


@dataclass(frozen=True)
class Size:
    """A published size: parameters in millions and GFLOPs, either of which may be missing."""

    name: str
    params: Figure | None
    gflops: Figure | None

    @property
    def figures(self) -> list[Figure]:
        return [figure for figure in (self.params, self.gflops) if figure is not None]

    def cells(self) -> tuple[str, ...]:
        params, gflops = (figure.cells()[:3] if figure else ("", "", "") for figure in (self.params, self.gflops))
        marks = {figure.mark for figure in self.figures}
        mark = marks.pop() if len(marks) == 1 else " / ".join(figure.mark for figure in self.figures)
        return (self.name, *params, *gflops, mark)


@dataclass(frozen=True)
class Section:
    title: str
    text: str
    rows: Sequence[Figure] | Sequence[Size]

    @property
    def figures(self) -> list[Figure]:
        return [figure for row in self.rows for figure in (row.figures if isinstance(row, Size) else [row])]

    def table(self) -> str:
        if isinstance(self.rows[0], Size):
            head = ("graph", "params M", "here", "difference", "GFLOPs", "here", "difference", "")
        else:
            head = ("figure", "printed", "here", "difference", "")
        return table_of(head, [row.cells() if isinstance(row, Size) else (row.what, *row.cells()) for row in self.rows])


def table_of(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
