"""Versions of a model in MLflow's registry: their names, tags and aliases, and the detector file of one.

The stage `register` creates versions; the gate (`promote`) moves the aliases between them.
A version's digests of data, parameters and code are in `components.lineage.record`, the copies of champions outside
MLflow in `components.tracking.champions`.
"""

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from components.tracking.runs import INPUTS_TAG
from yolo_core.atomic import replaced

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

MODEL_NAME_PREFIX = "scaled-yolov4-"
CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous_champion"  # aliases

# Tags of a version; what it was made of is under `INPUTS_TAG` of `components.tracking.runs`.
PIPELINE_RUN_TAG = "scaled_yolov4.pipeline_run"
VALIDATION_TAG = "scaled_yolov4.validation"
WEIGHTS_TAG = "scaled_yolov4.weights_sha256"

EVIDENCE = "evidence"  # folder of a version's run: its detections, metrics, speed and manifest


def registered_name(model: str) -> str:
    """The name of a model in the registry."""
    return f"{MODEL_NAME_PREFIX}{model}"


def version_of_inputs(client: "MlflowClient", model: str, inputs: str) -> "ModelVersion | None":
    """The registered version made of these inputs (a digest), None while there is none."""
    query = f"name = '{registered_name(model)}' and tags.`{INPUTS_TAG}` = '{inputs}'"
    return min(client.search_model_versions(query), key=lambda version: int(version.version), default=None)


def aliases_of(client: "MlflowClient", name: str) -> dict[str, int]:
    """Alias -> version number, of a registered model."""
    return {alias: int(number) for alias, number in client.get_registered_model(name).aliases.items()}


def version_of(client: "MlflowClient", model: str, alias: str) -> "ModelVersion | None":
    """The version of a model that carries this alias, None while there is none."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(registered_name(model), alias)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None


def version_weights(version: "ModelVersion", path: Path) -> Path:
    """Write the detector file of a registered version to `path`."""
    from mlflow.artifacts import download_artifacts

    with tempfile.TemporaryDirectory() as folder:
        uri = f"models:/{version.name}/{version.version}/artifacts"
        found = Path(download_artifacts(uri, dst_path=folder)) / "model.safetensors"
        with replaced(path) as temporary:
            shutil.copyfile(found, temporary)
    return path
