"""The first step of the pipeline: one checked parameter file for all the others."""

import json
import sys
import tempfile
from pathlib import Path

import yaml
from kfp import dsl

from components.params import load
from yolo_core.errors import UserError

DEFAULT = Path("params.yaml")  # of the folder the step runs in: the image's working folder


def write_params(text: str, overrides: list[str], models: list[str], out: dsl.Artifact) -> list[str]:
    """Write `text` (empty: the image's params.yaml) with the overrides applied; return the models to train.

    A parameter that is wrong ends the process with one line and exit code 2.
    """
    changes = [*overrides, *([f"models={json.dumps(models)}"] if models else [])]
    try:
        params = load(_source(text), changes)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    plain = params.model_dump(mode="json", by_alias=True, exclude_unset=True)
    Path(out.path).write_text(yaml.safe_dump(plain, sort_keys=False), encoding="utf-8")
    return params.models


def _source(text: str) -> Path:
    if not text:
        return DEFAULT
    path = Path(tempfile.mkdtemp(), DEFAULT.name)
    path.write_text(text, encoding="utf-8")
    return path
