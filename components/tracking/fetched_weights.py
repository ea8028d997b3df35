"""Detector files fetched from the registry by address: what `Detector.load("models:/NAME@champion")` calls."""

import re
from pathlib import Path

from components.files import WEIGHTS, sha256
from components.tracking.connection import connect, reaching, shown_uri
from components.tracking.model_versions import WEIGHTS_TAG, version_weights
from components.workspace import WORK
from yolo_core.errors import UserError

ADDRESS = re.compile(r"models:/+(?P<name>[^/@]+)(@(?P<alias>.+)|/(?P<number>\d+))")


def fetch(address: str) -> Path:
    """A local copy of the detector file of a version, named as models:/NAME@ALIAS or models:/NAME/VERSION.

    Copies are kept below runs/models and compared with the digest in the registry.
    Raises UserError when there is no such version, TryAgain when MLflow is unavailable.
    """
    from mlflow.exceptions import MlflowException

    parts = ADDRESS.fullmatch(address)
    if parts is None:
        raise UserError(f"{address}: write models:/NAME@ALIAS or models:/NAME/VERSION")
    client = connect()
    try:
        with reaching():
            if parts["alias"]:
                version = client.get_model_version_by_alias(parts["name"], parts["alias"])
            else:
                version = client.get_model_version(parts["name"], parts["number"])
    except MlflowException as error:
        raise UserError(f"{address}: not found in MLflow at {shown_uri()} ({error})") from None
    copy = WORK / "models" / version.name / str(version.version) / WEIGHTS
    digest = version.tags.get(WEIGHTS_TAG)
    if not copy.exists() or sha256(copy) != digest:
        with reaching():
            version_weights(version, copy)
        if digest and sha256(copy) != digest:
            raise UserError(f"{address}: its detector file is not the one that was registered; register it again")
    return copy
