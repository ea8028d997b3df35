"""The commands around a project's files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from components.cli import parameters
from components.cli.app import app
from components.cli.command import command
from components.cli.options import Overrides, ParamsFile, typer
from components.workspace import PARAMS


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
        print(yaml_text.dump(document), end="")
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, yaml_text.dump(document | {dvc_file.CODE: dvc_file.code_digests()}))
    print(f"parameters: -> {out}")
