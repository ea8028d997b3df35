"""Versions of a model in MLflow's registry: by the alias they carry, and the detector file of one."""

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from components.stages.register import registered_name
from yolo_core.atomic import replaced

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous_champion"


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

    with tempfile.TemporaryDirectory() as place:
        uri = f"models:/{version.name}/{version.version}/artifacts"
        found = Path(download_artifacts(uri, dst_path=place)) / "model.safetensors"
        with replaced(path) as temporary:
            shutil.copyfile(found, temporary)
    return path
