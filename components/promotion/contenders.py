"""The versions in a judgement: the registered one, and the one to compare it with.

Others use the same registry: aliases are deleted, runs are purged, versions are made by hand. Each ends in one line.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from components.datasets import manifest
from components.files import MANIFEST, read_json, require
from components.promotion.aliases import ROLLED_BACK_TAG, decision_on
from components.tracking.connection import shown_uri
from components.tracking.model_versions import CHAMPION, CLASSES_TAG, VALIDATION_TAG, evidence_of
from components.tracking.runs import INPUTS_TAG
from yolo_core.errors import UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

FORCE = "`scaled-yolov4 promote --force` makes the registered version the champion without a comparison"


def registered_version(client: "MlflowClient", name: str, registered: Path) -> "ModelVersion":
    """The version of a registered model in the file written by `register`; UserError unless MLflow has that one.

    Two registries number their versions alike, so the digest of the inputs is compared as well.
    """
    from mlflow.exceptions import MlflowException

    named = read_json(require(registered, "register"))
    if not isinstance(named, Mapping) or not {"registered_model", "version", "inputs_sha256"} <= named.keys():
        raise UserError(f"{registered}: not written by `scaled-yolov4 register`; run it again")
    if named["registered_model"] != name:
        raise UserError(f"{registered}: is about {named['registered_model']}, not {name}; give --model or --registered")
    what = f"version {named['version']} of {named['registered_model']}"
    try:
        version = client.get_model_version(named["registered_model"], str(named["version"]))
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise UserError(
            f"{registered}: {what} is not in MLflow at {shown_uri()}; run `scaled-yolov4 register` again"
        ) from None
    if version.tags.get(INPUTS_TAG) != named["inputs_sha256"]:
        raise UserError(
            f"{registered}: {what} in MLflow at {shown_uri()} was made from other inputs (inputs_sha256 differs); "
            "run `scaled-yolov4 register` again"
        )
    return version


def champion_version(client: "MlflowClient", name: str, number: int) -> "ModelVersion":
    """The champion of a registered model; UserError if `register` did not make it, as there is nothing to compare."""
    version = client.get_model_version(name, str(number))
    if missing := {INPUTS_TAG, VALIDATION_TAG} - version.tags.keys():
        raise UserError(
            f"{name}: version {number} has the alias `{CHAMPION}` but not the tag {min(missing)}, so "
            f"`scaled-yolov4 register` did not make it; move the alias to a version that it made; {FORCE}"
        )
    return version


def rival_of(client: "MlflowClient", version: "ModelVersion", champion: "ModelVersion") -> "ModelVersion | None":
    """The last champion that detects the same classes as a version: the champion, a former one or the version itself.

    A detector of other classes does another task. None when no champion did this one; what was rolled back is no rival.
    """
    task = _classes(client, version)
    if _classes(client, champion) == task:
        return champion
    known = {int(one.version): one for one in client.search_model_versions(f"name = '{version.name}'")}
    former = [known[number] for number in reversed(former_champions(client, version.name)) if number in known]
    rivals = (one for one in former if INPUTS_TAG in one.tags and ROLLED_BACK_TAG not in one.tags)
    return next((one for one in rivals if _classes(client, one) == task), None)


def _classes(client: "MlflowClient", version: "ModelVersion") -> str:
    """A digest of the classes that a version detects; UserError if it cannot be found out."""
    if digest := version.tags.get(CLASSES_TAG):
        return digest
    with tempfile.TemporaryDirectory() as temporary:
        evidence = evidence_of(client, version, Path(temporary), FORCE)
        return manifest.classes_digest(manifest.read(evidence / MANIFEST))


def check_never_championed(client: "MlflowClient", name: str) -> None:
    """UserError if a registered model without a champion had one before: its alias was deleted."""
    former = former_champions(client, name)
    if former:
        shown = f"version{'s' if former[1:] else ''} {', '.join(map(str, former))}"
        raise UserError(
            f"{name}: no version has the alias `{CHAMPION}`, which {shown} had before; "
            f"set the alias again on the version in service; {FORCE}"
        )


def former_champions(client: "MlflowClient", name: str) -> list[int]:
    """The numbers of all versions that a recorded decision left as the champion, ascending; some may be deleted."""
    versions = client.search_model_versions(f"name = '{name}'")
    decisions = [decision for version in versions if (decision := decision_on(version))]
    named = {number for made in decisions for number in (made.champion_before, made.champion_after)}
    return sorted(number for number in named if number is not None)
