"""Versions of a model in MLflow's registry: their names, tags and aliases, and the detector file of one.

The stage `register` creates versions; the gate (`promote`) moves the aliases between them.
A version's digests of data, parameters and code are in `components.lineage.record`, the copies of champions outside
MLflow in `components.tracking.champions`.
"""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from components.tracking.connection import shown_uri
from components.tracking.runs import INPUTS_TAG, PIPELINE_TAG
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


@dataclass(frozen=True)
class RegisteredVersion:
    """A version as `outputs/register/<model>.json` describes it: always the same for the same version."""

    model: str
    """The model's name in `params.yaml`."""
    registered_model: str
    """Its name in the registry."""
    version: int
    """The number in the registry."""
    run_id: str | None
    """The run of the stage `register` that made it."""
    pipeline_run_id: str
    """The root run of the pass."""
    pipeline: str
    """The id of the pass."""
    experiment: str
    """The name of the MLflow experiment."""
    tracking_uri: str
    """MLflow's address, without credentials."""
    weights_sha256: str
    """Of the detector file."""
    validation_sha256: str
    """Of the validation split it was evaluated on."""
    inputs_sha256: str
    """Of everything that went into it."""
    git_commit: str | None
    """The commit it was registered from; None outside a repository."""

    @classmethod
    def of(cls, client: "MlflowClient", model: str, version: "ModelVersion") -> "RegisteredVersion":
        """The description of a version in the registry."""
        run = client.get_run(str(version.run_id))
        return cls(
            model=model,
            registered_model=version.name,
            version=int(version.version),
            run_id=version.run_id,
            pipeline_run_id=version.tags[PIPELINE_RUN_TAG],
            pipeline=version.tags[PIPELINE_TAG],
            experiment=client.get_experiment(run.info.experiment_id).name,
            tracking_uri=shown_uri(),
            weights_sha256=version.tags[WEIGHTS_TAG],
            validation_sha256=version.tags[VALIDATION_TAG],
            inputs_sha256=version.tags[INPUTS_TAG],
            git_commit=run.data.tags.get("mlflow.source.git.commit"),
        )


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
