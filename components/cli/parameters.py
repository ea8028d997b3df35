"""Parameters as given to a command: a file, local or in the object store, and overrides of single values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from components.params import ParameterFile, Params
    from components.stage_row import Stage


def read(path: Path | str) -> ParameterFile:
    """Read the parameter file."""
    from components import params

    if ":/" in str(path):
        from components.storage.stage_paths import local_copy

        path = Path(local_copy(str(path)))
    return params.ParameterFile.read(Path(path))


def load(path: Path | str, overrides: list[str]) -> Params:
    """Read and check the parameters."""
    return read(path).load(overrides)


def overrides_of(stage: Stage, model: str, given: Mapping[str, object]) -> list[str]:
    """The parameter overrides from those options of a stage that set a parameter."""
    named = {option.sets.format(model=model): given.get(option.name) for option in stage.options if option.sets}
    return [f"{key}={json.dumps(value, default=str)}" for key, value in named.items() if value is not None]
