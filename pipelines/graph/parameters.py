"""The parameters of a run: one validated file for all steps, and the files derived from it by later steps."""

import json
import tempfile
from pathlib import Path

from kfp import dsl

from components import yaml_text
from components.files import DECISION, DECISION_PAGE, read_json
from components.lineage.record import IMAGE_VARIABLE, REQUESTED_VARIABLE, SOURCE_VARIABLE, parameters_digest
from components.parameter_file import load
from components.params import Params
from components.retraining.decision import TRAINING
from components.tracking.connection import PIPELINE_VARIABLE
from components.workspace import PARAMS
from pipelines.exit_codes import exit_codes
from pipelines.graph.artifacts import address

DEFAULT = PARAMS  # in the step's working folder, which is the image's


def variables(pipeline_id: str, mlflow_tracking_uri: str, image: str = "") -> dict[str, str]:
    """Environment variables that the run passes to each of its stages; empty ones are left to the stages' defaults."""
    given = {
        PIPELINE_VARIABLE: pipeline_id,
        "MLFLOW_TRACKING_URI": mlflow_tracking_uri,
        IMAGE_VARIABLE: image,
    }
    return {name: value for name, value in given.items() if value}


def parsed(text: str, changes: list[str]) -> Params:
    """`text` (empty: the image's params.yaml) with the changes applied. Raises UserError if invalid."""
    if not text:
        return load(DEFAULT, changes)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, DEFAULT.name)
        path.write_text(text, encoding="utf-8")
        return load(path, changes)


def write_params(
    text: str, overrides: list[str], models: list[str], out: dsl.Artifact, data_revision: str = ""
) -> list[str]:
    """Write `text` (empty: the image's params.yaml) with the overrides applied; return the models to train.

    An invalid parameter ends the process with one line and exit code 2.
    """
    own = {"models": models, "prepare.revision": data_revision}
    changes = [*overrides, *(f"{name}={json.dumps(value)}" for name, value in own.items() if value)]
    with exit_codes():
        params = parsed(text, changes)
    plain = params.model_dump(mode="json", by_alias=True, exclude_unset=True)
    Path(out.path).write_text(yaml_text.dump(plain), encoding="utf-8")
    return params.models


def write_pinned(params: dsl.Artifact, found: dsl.Artifact, out: dsl.Artifact) -> str:
    """Write the parameters pinned to the data that were found; returns "prepare", or "rest" if nothing changed.

    found: the file that `check-source` wrote. The source's fingerprint is passed to every stage with the parameters.
    """
    record = read_json(Path(found.path))
    write_params(Path(params.path).read_text(encoding="utf-8"), record["changes"], [], out)
    out.metadata.update(params.metadata | {SOURCE_VARIABLE: record["fingerprint"]})
    return "rest" if record["nothing_to_do"] else "prepare"


def write_chosen(params: dsl.Artifact, plan: dsl.Artifact, out: dsl.Artifact, page: dsl.Markdown) -> list[str]:
    """Write the parameters of the trainings that `retrain` decided on, and its decisions as one page.

    plan: the folder that `retrain` wrote. Returns the models to train; if there are none, `out` has all models.
    """
    requested = load(Path(params.path))
    folders = [Path(plan.path, model) for model in requested.models]
    decisions = [read_json(folder / DECISION) for folder in folders]
    texts = [(folder / DECISION_PAGE).read_text(encoding="utf-8") for folder in folders]
    Path(page.path).write_text("\n".join(texts), encoding="utf-8")
    models = [decision["model"] for decision in decisions if decision["action"] in TRAINING]
    with exit_codes():  # later steps find the files in the plan's folder at the artifact's address
        changes = [text.replace(plan.path, address(plan)) for decision in decisions for text in decision["overrides"]]
    write_params(Path(params.path).read_text(encoding="utf-8"), changes, models, out)
    digests = {model: parameters_digest(requested, model) for model in models}
    out.metadata.update(params.metadata | {REQUESTED_VARIABLE: json.dumps(digests)})
    return models
