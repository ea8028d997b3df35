"""The command `models`: prints each detector's cost and the results in its paper."""

from rich.table import Table

from components.reports.console import console
from yolo_core.models.catalogue import Entry, entries

COLUMNS = ("model", "size", "params M", "GFLOPs", "AP", "AP50", "AP75", "FPS", "FPS on")


def show(num_classes: int) -> None:
    """Print every model: parameters and GFLOPs counted as in its paper, AP and speed as published."""
    table = Table(title=f"Detectors ({num_classes} classes; AP and FPS as published, on COCO)")
    for column in COLUMNS:
        table.add_column(
            column, justify="left" if column in ("model", "FPS on") else "right", no_wrap=column != "FPS on"
        )
    for entry in entries(num_classes):
        table.add_row(*_cells(entry))
    console().print(table)


def _cells(entry: Entry) -> tuple[str, ...]:
    """Cells of a row, in the order of COLUMNS."""
    published = entry.published
    scores = (published.ap, published.ap50, published.ap75)
    return (
        entry.name,
        str(entry.size),
        f"{entry.cost.params / 1e6:.2f}",
        f"{entry.cost.gflops:.1f}",
        *("-" if score is None else f"{score:.1f}" for score in scores),
        "-" if published.fps is None else f"{published.fps:g}",
        published.fps_on or "-",
    )
