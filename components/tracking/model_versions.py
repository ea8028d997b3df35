"""Versions of a model in MLflow's registry: their names, tags and aliases, and the detector file of one.

The stage `register` creates versions; the gate (`promote`) moves the aliases between them.
A version's digests of data, parameters and code are in `components.lineage.record`, the copies of champions outside
MLflow in `components.tracking.champions`.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from components.files import WEIGHTS
from components.tracking.connection import shown_uri
from components.tracking.runs import INPUTS_TAG, PIPELINE_TAG
from yolo_core.atomic import replaced
from yolo_core.errors import UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous_champion"  # aliases

# Tags of a version; what it was made of is under `INPUTS_TAG` of `components.tracking.runs`.
PIPELINE_RUN_TAG = "scaled_yolov4.pipeline_run"
VALIDATION_TAG = "scaled_yolov4.validation"
CLASSES_TAG = "scaled_yolov4.classes_sha256"  # of the class names; versions of earlier releases have none
WEIGHTS_TAG = "scaled_yolov4.weights_sha256"

EVIDENCE = "evidence"  # folder of a version's run: its detections, metrics, speed and manifest


@dataclass(frozen=True)
class RegisteredVersion:
    """A version as `outputs/register/<model>.json` describes it: always the same for the same version."""

    model: str
    """The model's name in `params.yaml`."""
    registered_model: str
    """Name of the model in the registry."""
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
    """Digest of the detector file."""
    validation_sha256: str
    """Digest of the validation split it was evaluated on."""
    inputs_sha256: str
    """Digest of everything that went into it."""
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


def version_of_inputs(client: "MlflowClient", name: str, inputs: str) -> "ModelVersion | None":
    """The first version of a registered model made from these inputs (a digest) whose run still exists, if any."""
    query = f"name = '{name}' and tags.`{INPUTS_TAG}` = '{inputs}'"
    found = sorted(client.search_model_versions(query), key=lambda version: int(version.version))
    return next((version for version in found if _has_run(client, version)), None)


def _has_run(client: "MlflowClient", version: "ModelVersion") -> bool:
    """Whether the run that made a version exists: `mlflow gc` purges deleted runs and leaves their versions."""
    from mlflow.exceptions import MlflowException

    try:
        return bool(version.run_id and client.get_run(version.run_id))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False


def aliases_of(client: "MlflowClient", name: str) -> dict[str, int]:
    """Alias -> version number, of a registered model."""
    return {alias: int(number) for alias, number in client.get_registered_model(name).aliases.items()}


def version_of(client: "MlflowClient", name: str, alias: str) -> "ModelVersion | None":
    """The version of a registered model that carries this alias, None while there is none."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None


def evidence_of(client: "MlflowClient", version: "ModelVersion", folder: Path, remedy: str) -> Path:
    """The folder `EVIDENCE` of a version's run, downloaded to `folder`.

    UserError if the run is gone or was not made by `register`; remedy: what to do then.
    """
    what = f"{version.name}: version {version.version} has no"
    if not _has_run(client, version):
        raise UserError(f"{what} run in MLflow at {shown_uri()}, so its detections and speed are unknown; {remedy}")
    with _found(f"{what} evidence in its run {version.run_id}; {remedy}"):
        return Path(client.download_artifacts(str(version.run_id), EVIDENCE, str(folder)))


def version_weights(version: "ModelVersion", path: Path) -> Path:
    """Write the detector file of a registered version to `path`; UserError if the version has none."""
    from mlflow.artifacts import download_artifacts

    remedy = "register its results again, or move its aliases to another version"
    with (
        tempfile.TemporaryDirectory() as folder,
        _found(f"{version.name}: version {version.version} has no detector file in its artifacts; {remedy}"),
    ):
        uri = f"models:/{version.name}/{version.version}/artifacts"
        found = Path(download_artifacts(uri, dst_path=folder)) / WEIGHTS
        with replaced(path) as temporary:
            shutil.copyfile(found, temporary)
    return path


@contextmanager
def _found(otherwise: str) -> Iterator[None]:
    """UserError(otherwise) for artifacts that do not exist."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except FileNotFoundError:
        raise UserError(otherwise) from None
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"):
            raise
        raise UserError(otherwise) from None
