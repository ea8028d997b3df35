"""The command `scaled-yolov4`, to which the other modules add their commands.

Exit codes: 0 success, 1 bug or crash, 2 the user can fix it, 3 a service is unavailable: try again.
"""

from importlib.metadata import version
from typing import Annotated

from components.cli.command import examples_of
from components.cli.options import typer

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Scaled-YOLOv4, from data to a promoted model. `dvc repro` runs all stages; each also runs alone.",
    epilog=examples_of(
        "scaled-yolov4 doctor",
        "scaled-yolov4 prepare -S prepare.source=coco-dir -S prepare.location=/data/my-coco",
        "scaled-yolov4 train --model yolov4-tiny -S train.epochs=100",
        "scaled-yolov4 promote --model yolov4-tiny --rollback",
    ),
)


def _show_version(asked: bool) -> None:
    if asked:
        print(f"scaled-yolov4 {version('scaled-yolov4')}")
        raise typer.Exit


@app.callback()
def common(
    _: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """The options before the command."""
