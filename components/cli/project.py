"""The commands around a project's files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from components.cli import parameters
from components.cli.app import app
from components.cli.command import command
from components.cli.options import Overrides, ParamsFile, typer
from components.workspace import PARAMS
from yolo_core.errors import UserError, without_credentials


@command(
    app,
    "init",
    "scaled-yolov4 init ../photos",
    "scaled-yolov4 init ../photos/data.yaml birds --weights yolov7.safetensors --hours 8 --yes",
)
def init(
    *,
    data: Annotated[Path, typer.Argument(help="Folder of labelled images, or its data.yaml.")],
    name: Annotated[str, typer.Argument(help="Name of the project; default: that of this folder.")] = "",
    also: Annotated[list[Path], typer.Option(help="A further folder; its classes join by their names.")] = [],
    class_: Annotated[
        list[str], typer.Option("--class", metavar="NAME=NEW", help="Rename a class; NAME= leaves it out.")
    ] = [],
    weights: Annotated[str, typer.Option(metavar="FILE|ADDRESS", help="Detector to fine-tune.")] = "",
    hours: Annotated[float, typer.Option(min=0.01, help="Length of the training to plan for.")] = 1.0,
    yes: Annotated[bool, typer.Option("--yes", help="Write the files without asking.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the files of a project that is here.")] = False,
) -> None:
    """Look at a dataset and this machine, and write a project.

    Writes params.yaml, dvc.yaml, .gitignore and README.md to this folder. Then `dvc repro` trains the detector.
    """
    from components.monitoring.progress import on_stderr
    from components.project.init import Request, run

    if not yes and not sys.stdin.isatty():
        raise UserError("init: nobody can be asked here; give --yes")
    request = Request(data, tuple(also), _new_names(class_), name, weights, hours, force)

    def agreed() -> bool:
        return yes or typer.confirm("Write this?", default=True)

    def say(line: str) -> None:
        print(without_credentials(line))

    if run(request, say=say, agreed=agreed, progress=on_stderr()):
        print("init: -> params.yaml, dvc.yaml; next: dvc repro")


def _new_names(renamed: list[str]) -> dict[str, str | None]:
    names: dict[str, str | None] = {}
    for text in renamed:
        name, equals, new = text.partition("=")
        if not name or not equals:
            raise UserError(f"--class {text}: expected NAME=NEW, or NAME= to leave the class out")
        names[name] = new or None
    return names


@command(app, "parameters", "scaled-yolov4 parameters", "scaled-yolov4 parameters -S train.epochs=30 | grep epochs")
def parameters_(
    *,
    out: Annotated[
        Path | None, typer.Option(help="File to write, with a digest of each stage's code, for DVC.")
    ] = None,
    params: ParamsFile = PARAMS,
    overrides: Overrides = [],
) -> None:
    """Show all parameters: the file's, and the defaults of those it leaves out."""
    from components import dvc_file, yaml_text
    from yolo_core.atomic import write_text

    document = parameters.load(params, overrides).document()
    if out is None:
        print(without_credentials(yaml_text.dump(document)), end="")
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, yaml_text.dump(document | {dvc_file.CODE: dvc_file.code_digests()}))
    print(f"parameters: -> {out}")
