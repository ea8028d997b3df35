"""The published schemas to check manifests and requests against, where available.

`make schemas` fetches them into .schemas; SCHEMAS names another folder, and ../shared/schemas is searched too.
"""

import functools
import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[2]
FOLDERS = [Path(os.environ.get("SCHEMAS") or ROOT / ".schemas"), ROOT.parent / "shared" / "schemas"]
FOLDER = next((folder for folder in FOLDERS if folder.is_dir()), FOLDERS[0])


@functools.cache
def rayjob_validator() -> jsonschema.Validator:
    """For RayJobs, ray.io/v1; an unknown field is an error. Skips the test if the CRD is missing."""
    crd = yaml.load(_text("ray.io_rayjobs.yaml"), yaml.CSafeLoader)
    version = next(version for version in crd["spec"]["versions"] if version["name"] == "v1")
    schema = version["schema"]["openAPIV3Schema"]
    _close(schema)
    return jsonschema.Draft202012Validator(schema)


def rayjob_problems(job: dict[str, Any]) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in rayjob_validator().iter_errors(job)]


@functools.cache
def kfp_swagger() -> dict[str, Any]:
    """For the API of Kubeflow Pipelines, v2beta1. Skips the test if it is missing."""
    return json.loads(_text("kfp_api_v2beta1.swagger.json"))


def _text(name: str) -> str:
    path = FOLDER / name
    if not path.exists():
        pytest.skip(f"{path} is missing; `make schemas` fetches it")
    return path.read_text()


def _close(schema: Any) -> None:
    """Refuse unknown fields wherever the schema lists the known ones, as strict field validation does."""
    if isinstance(schema, dict):
        open_ended = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
        if "properties" in schema and not open_ended:
            schema["additionalProperties"] = False
        for part in schema.values():
            _close(part)
    elif isinstance(schema, list):
        for part in schema:
            _close(part)
