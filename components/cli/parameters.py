"""Parameters as given to a command: a file, local or in the object store, and overrides of single values."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from components.parameter_file import ParameterFile
    from components.params import Params
    from components.stage_row import Stage


def read(path: Path | str) -> ParameterFile:
    """Read the parameter file; a project without one uses the defaults, which a line says."""
    from components.parameter_file import of_project

    if ":/" in str(path):
        from components.storage.stage_paths import local_copy

        path = Path(local_copy(str(path)))
    file = of_project(Path(path))
    if file.is_missing:
        print(f"no {path}: using the defaults; `scaled-yolov4 parameters` shows them", file=sys.stderr)
    return file


def load(path: Path | str, overrides: list[str]) -> Params:
    """Read and check the parameters."""
    return read(path).load(overrides)


def overrides_of(stage: Stage, model: str, given: Mapping[str, object]) -> list[str]:
    """The parameter overrides from those options of a stage that set a parameter."""
    named = {option.sets.format(model=model): given.get(option.name) for option in stage.options if option.sets}
    return [f"{key}={json.dumps(value, default=str)}" for key, value in named.items() if value is not None]
