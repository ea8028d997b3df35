"""The page docs/scorecard.md: the sections, a summary of their marks, and the figures that need a GPU."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from yolo_core.models import get_spec, model_names, published
from yolo_core.scorecard import rules, sizes
from yolo_core.scorecard.figures import MARKS, Figure, number, table_of

INTRODUCTION = """# Scorecard

The papers' figures next to those of this repository's models. `python -m yolo_core.scorecard` generates this page from
the model specifications, `yolo_core/models/published.py` and counting; do not edit it.

Scaled-YOLOv4 is arXiv 2011.08036, YOLOv7 is 2207.02696. COCO, 80 classes; a multiply-add is two operations.

- reproduced: counted, and the same in the printed digits or within 0.1 % of the figure;
- derived: follows by arithmetic from other figures, to the same precision;
- needs a GPU: requires training or timing;
- differs: counted or derived, and further off."""


def page() -> str:
    """The page as Markdown; deterministic."""
    sections = [
        sizes.models(),
        sizes.csp_ablation(),
        sizes.tiny_ablation(),
        sizes.compound(),
        rules.layers(),
        rules.tiny_rules(),
        rules.gpu_use(),
    ]
    figures = [figure for section in sections for figure in section.figures]
    accuracy, speeds = list(_accuracy()), list(_speeds())
    marks = Counter(figure.mark.strip("*") for figure in figures)
    marks["needs a GPU"] += sum(row.figures for row in (*accuracy, *speeds))
    exact = sum(figure.exact for figure in figures if figure.mark == "reproduced")
    parts = [INTRODUCTION, _summary(marks, exact, [f for f in figures if f.mark == "**differs**"])]
    parts += [f"## {section.title}\n\n{section.text}\n\n{section.table()}" for section in sections]
    parts.append(
        "## Accuracy\n\nCOCO AP in percent, as published; all of it needs a GPU. 2011.08036 differs by version.\n\n"
        + table_of(("of", "AP", "AP50", "AP75", "source"), [row.cells for row in accuracy])
    )
    parts.append(
        "## Speed\n\nImages/s, as published; all of it needs the GPU named.\n\n"
        + table_of(("model", "px", "device", "how", "images/s"), [row.cells for row in speeds])
    )
    return "\n\n".join(parts) + "\n"


def _summary(marks: Counter[str], exact: int, differing: list[Figure]) -> str:
    rows = [(mark, str(marks[mark])) for mark in MARKS]
    exactly = f"{exact} of the {marks['reproduced']} reproduced figures are the same in every printed digit."
    off = [
        f"- {f.what}: {f.cells()[0]} printed, {f.cells()[1]} here ({100 * f.difference / number(f.printed):+.1f} %)"
        for f in differing
    ]
    return "\n".join((table_of(("mark", "figures"), rows), "", exactly, "", "Differing:", "", *off))


# --- Figures that need a GPU ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """Published figures that need training or timing: the cells of a row, and how many figures it has."""

    cells: tuple[str, ...]
    figures: int


def _accuracy() -> Iterator[Measured]:
    own = [
        published.Accuracy(f"{spec.name}, {spec.native_size} px", p.ap, p.ap50, p.ap75, p.source)
        for spec in map(get_spec, _once())
        if (p := spec.published).ap is not None
    ]
    compounds = [
        published.Accuracy(f"compound scaling, {what}", ap, source=f"{published.YOLOV7}, table 3")
        for what, ap in published.COMPOUND_AP.items()
    ]
    for row in (*own, *published.OTHER_ACCURACY, *compounds):
        values = (row.ap, row.ap50, row.ap75)
        cells = tuple("" if value is None else f"{value:.1f}" for value in values)
        yield Measured((row.what, *cells, row.source), sum(value is not None for value in values))


def _once() -> list[str]:
    """The models, without those whose figures are published under another name too."""
    twice = {"yolov4-csp-leaky"}  # a row of table 8
    return [name for name in model_names() if name not in twice]


def _speeds() -> Iterator[Measured]:
    for s in published.printed_speeds():
        how = ", ".join(part for part in (f"batch {s.batch}", s.how) if part)
        yield Measured((s.model, str(s.size), s.device, how, f"{s.fps:g}"), 1)
