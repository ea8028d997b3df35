"""The table behind `scaled-yolov4 models`: what each detector costs and what its paper reports."""

from rich.console import Console
from rich.table import Table

from yolo_core.models import build_model, get_spec, model_names
from yolo_core.models.cost import paper_cost

COLUMNS = ("model", "size", "params M", "GFLOPs", "AP", "AP50", "AP75", "FPS", "FPS on")


def show(num_classes: int) -> None:
    """Print every model: parameters and GFLOPs counted here the way its paper does, AP and speed as published."""
    table = Table(title=f"Detectors ({num_classes} classes; AP and FPS as published, on COCO)")
    for column in COLUMNS:
        table.add_column(
            column, justify="left" if column in ("model", "FPS on") else "right", no_wrap=column != "FPS on"
        )
    for name in model_names():
        table.add_row(*row(name, num_classes))
    Console().print(table)


def row(name: str, num_classes: int) -> tuple[str, ...]:
    """One model as the texts of COLUMNS."""
    import torch

    spec = get_spec(name)
    with torch.device("meta"):  # counting needs shapes, not weights
        counted = paper_cost(build_model(name, num_classes), spec.native_size)
    published = spec.published
    scores = (published.ap, published.ap50, published.ap75)
    return (
        name,
        str(spec.native_size),
        f"{counted.params / 1e6:.2f}",
        f"{counted.gflops:.1f}",
        *("-" if score is None else f"{score:.1f}" for score in scores),
        "-" if published.fps is None else f"{published.fps:g}",
        published.fps_on or "-",
    )
