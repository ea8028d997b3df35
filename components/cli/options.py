"""Options that several commands share, and how their values are read.

Only Typer is imported that takes time, so that `--help` stays quick.
"""

import sys
from pathlib import Path
from typing import Annotated

from components.monitoring.training_log import FORMAT_VARIABLE, Format
from components.tracking.sinks import TENSORBOARD_VARIABLE, WANDB_VARIABLE

try:
    import typer
except ModuleNotFoundError:
    sys.exit("error: the command line needs more than the detector; run: pip install 'scaled-yolov4[train]'")


def path_or_address(text: str | Path) -> str | Path:
    """A local path, or an address as text: a Path would drop its second slash."""
    return text if ":/" in str(text) else Path(text)


ParamsFile = Annotated[Path, typer.Option("--params", help="Parameter file.")]
StageParams = Annotated[
    Path, typer.Option("--params", parser=path_or_address, metavar="FILE|S3", help="Parameter file.")
]
Overrides = Annotated[list[str], typer.Option("-S", "--set", metavar="KEY=VALUE", help="Change one parameter.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Model = Annotated[str, typer.Option(help="A name from `scaled-yolov4 models`; default: the first in the parameters.")]

LogFormat = Annotated[
    Format,
    typer.Option(envvar=FORMAT_VARIABLE, help="How epochs are reported: in text, or as one JSON object per line."),
]

TensorBoard = Annotated[
    Path | None,
    typer.Option(envvar=TENSORBOARD_VARIABLE, metavar="FOLDER", help="Write the curves for TensorBoard, too."),
]
WandB = Annotated[
    str | None,
    typer.Option(envvar=WANDB_VARIABLE, metavar="PROJECT", help="Send the curves to Weights & Biases, too."),
]


def stage_path(meaning: str, default: str) -> object:
    """A path option that also takes an address in the object store."""
    return typer.Option(help=meaning, show_default=default, parser=path_or_address, metavar="PATH|S3")
