"""Record one model's whole lineage in MLflow and register it as `scaled-yolov4-<model>`.

A version is known by a digest of everything that went into it: registering the same results again finds it.
What a later promotion needs of a version (its detections, its speed) is kept with the version's own run, whose files
no other run overwrites.
"""

import base64
import csv
import hashlib
import importlib.metadata
import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.datasets import manifest
from components.datasets.digest import dataset_digest
from components.files import read_json, require, sha256
from components.lineage.record import LINEAGE_TAG, SOURCE_TAG, SOURCE_VARIABLE, Lineage, lineage
from components.params import Params
from components.tracking.connection import connect, reaching, shown_uri
from components.tracking.model_versions import (
    EVIDENCE,
    PIPELINE_RUN_TAG,
    VALIDATION_TAG,
    WEIGHTS_TAG,
    registered_name,
    version_of_inputs,
)
from components.tracking.runs import INPUTS_TAG, MODEL_TAG, PIPELINE_TAG, StageRun, flatten, stage_run
from yolo_core import progress as progress_
from yolo_core.atomic import write_json

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

SERVING_CODE = Path(__file__).parents[1] / "serving" / "detector_model.py"

# Columns of curves.csv -> the metrics that training logs.
CURVES = {name: f"train/{name}" for name in ("lr", "box", "obj", "cls", "loss")}
CURVES |= {name: f"val/{name}" for name in ("AP", "AP50")}

# What `serving/detector_model.py` imports, besides MLflow itself: no training, no pipeline.
SERVING_PACKAGES = ("torch", "numpy", "numba", "opencv-python-headless", "pandas", "safetensors")


@dataclass(frozen=True)
class Results:
    """Where the earlier stages left one model's results."""

    model: str
    data: Path
    anchors: Path
    hyp: Path | None
    train: Path
    evaluate: Path
    export: Path
    benchmark: Path

    @property
    def weights(self) -> Path:
        return self.train / "model.safetensors"

    @property
    def annotations(self) -> Path:
        return self.data / "annotations" / "instances_val.json"

    def needed(self) -> dict[str, Path]:
        """The files that make a version what it is; UserError names one that is missing and its stage."""
        return {
            "manifest": require(self.data / "manifest.json", "prepare"),
            "annotations": require(self.annotations, "prepare"),
            "anchors": require(self.anchors, "anchors"),
            "weights": require(self.weights, "train"),
            "metrics": require(self.evaluate / "metrics.json", "evaluate"),
            "detections": require(self.evaluate / "detections.json", "evaluate"),
            "export": require(self.export / "export.json", "export"),
            "benchmark": require(self.benchmark / "benchmark.json", "benchmark"),
            **({"hyp": self.hyp} if self.hyp and self.hyp.exists() else {}),
        }

    def digest(self) -> str:
        """SHA-256 (hex) over the content of the needed files."""
        lines = [f"{name} {sha256(path)}" for name, path in sorted(self.needed().items())]
        return hashlib.sha256("\n".join([self.model, *lines]).encode()).hexdigest()


def run(
    params: Params,
    *,
    model: str,
    data: Path,
    anchors: Path,
    hyp: Path | None,
    train: Path,
    evaluate: Path,
    export: Path,
    benchmark: Path,
    out: Path,
    progress: progress_.Progress = progress_.silent,
) -> dict[str, Any]:
    """Log the run tree, register the version, and write what they are called to `out` (JSON).

    Raises UserError when a stage's result is missing or MLflow cannot be reached.
    """
    results = Results(model, data, anchors, hyp, train, evaluate, export, benchmark)
    inputs = results.digest()
    client = connect()
    with reaching():
        version = version_of_inputs(client, model, inputs)
        known = version is not None
        if version is None:
            log_earlier_stages(params, results, inputs, progress)
            version = log_version(params, results, inputs, client)
    record = describe(client, model, version)
    write_json(out, record)
    return {"name": record["registered_model"], "version": record["version"], "state": "known" if known else "new"}


def describe(client: "MlflowClient", model: str, version: "ModelVersion") -> dict[str, Any]:
    """A version as `outputs/register/<model>.json` holds it: the same for the same version."""
    run = client.get_run(str(version.run_id))
    return {
        "model": model,
        "registered_model": version.name,
        "version": int(version.version),
        "run_id": version.run_id,
        "pipeline_run_id": version.tags[PIPELINE_RUN_TAG],
        "pipeline": version.tags[PIPELINE_TAG],
        "experiment": client.get_experiment(run.info.experiment_id).name,
        "tracking_uri": shown_uri(),
        "weights_sha256": version.tags[WEIGHTS_TAG],
        "validation_sha256": version.tags[VALIDATION_TAG],
        "inputs_sha256": version.tags[INPUTS_TAG],
        "git_commit": run.data.tags.get("mlflow.source.git.commit"),
    }


def log_earlier_stages(params: Params, results: Results, inputs: str, progress: progress_.Progress) -> None:
    """Give every earlier stage its run below the root, with parameters, metrics and files."""
    steps: dict[str, Callable[[StageRun], None]] = {
        "train": lambda run: _log_train(run, params, results),
        "evaluate": lambda run: _log_figures(run, results.evaluate, "metrics.json"),
        "export": lambda run: _log_figures(run, results.export, "export.json"),
        "benchmark": lambda run: _log_figures(run, results.benchmark, "benchmark.json"),
    }
    sections = params.model_dump(mode="json", by_alias=True, exclude_none=True)
    for stage, log in progress(steps.items(), "register"):
        # Training logs live, before these inputs exist; its run is known by stage and model alone.
        with stage_run(params, results.data, stage, results.model, inputs=None if stage == "train" else inputs) as run:
            run.log_params(flatten(sections[stage]))
            log(run)


def _log_train(run: StageRun, params: Params, results: Results) -> None:
    """The checkpoint, the settings of this model, and the curves where training did not log them itself."""
    run.log_params(flatten(params.train_settings(results.model).model_dump(exclude_none=True), "model."))
    if not run.has_metrics and (results.train / "curves.csv").exists():
        run.log_history(_curves(results.train / "curves.csv"))
    run.artifact(results.train)


def _curves(path: Path) -> Iterator[tuple[int, dict[str, float]]]:
    """The rows of curves.csv by step, named as training names them; empty cells are left out."""
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            values = {CURVES.get(name, name): float(value) for name, value in row.items() if value}
            yield int(values.pop("step")), values


def _log_figures(run: StageRun, folder: Path, report: str) -> None:
    """A stage's folder, and every number of its report as a metric."""
    run.log(_numbers(_by_name(read_json(folder / report))))
    run.artifact(folder)


def _by_name(report: dict[str, Any]) -> dict[str, Any]:
    """The benchmark's rows as sections named by what was measured; other reports have none."""
    rows = report.get("rows", [])
    named = {f"rows/{row['backend']} {row['precision']} b{row['batch']}": row for row in rows}
    return {**{key: value for key, value in report.items() if key != "rows"}, **named}


def _numbers(report: dict[str, Any]) -> dict[str, float]:
    """The finite numbers of a parsed JSON document, with dotted names."""
    return {
        name: float(value)
        for name, value in flatten(report).items()
        if isinstance(value, int | float) and math.isfinite(value)
    }


def log_version(params: Params, results: Results, inputs: str, client: "MlflowClient") -> "ModelVersion":
    """Log what belongs to the whole pass and the servable model, and register that as a new version."""
    with stage_run(params, results.data, "register", results.model, inputs=inputs) as run:
        _log_pass(run, params, results, client)
        run.log(_headline(results))
        for name in ("manifest", "metrics", "detections", "benchmark"):
            run.artifact(results.needed()[name], EVIDENCE)
        run.artifact(require(results.train / "train.json", "train"), EVIDENCE)
        model_uri = _log_model(run, results)
        made_of = lineage(params, results.model, manifest.read(results.data / manifest.NAME)["sha256"])
        return _register(client, run, results, inputs, made_of, model_uri)


def _log_pass(run: StageRun, params: Params, results: Results, client: "MlflowClient") -> None:
    """What all models of a pass share: parameters, data, anchors, hyperparameters, the DVC lock file."""
    everything = params.model_dump(mode="json", by_alias=True, exclude_none=True)
    run.root.log_params(flatten(everything))
    run.root.text(json.dumps(everything, indent=1), "params.json")
    run.root.log({f"{results.model}/{name}": value for name, value in _headline(results).items()})
    run.root.tag(dataset_sha256=manifest.read(results.data / manifest.NAME)["sha256"])
    run.root.artifact(results.data / "manifest.json", "dataset")
    run.root.artifact(results.anchors, "anchors")
    if results.hyp:
        for path in (results.hyp, *(results.hyp.with_name(name) for name in ("ledger.jsonl", "fitness.png"))):
            if path.exists():
                run.root.artifact(path, "evolve")
    if Path("dvc.lock").exists():
        run.root.artifact(Path("dvc.lock"))
    _log_dataset(client, run, params, results.data)


def _log_dataset(client: "MlflowClient", run: StageRun, params: Params, data: Path) -> None:
    """The dataset as MLflow's own kind of input, on the root and on the version's run."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = {"source": params.prepare.source, "location": params.prepare.location, "prepared": str(data)}
    digest = dataset_digest(data)[:36]  # as long as MLflow takes
    dataset = Dataset(params.prepare.source, digest, "local", json.dumps(source))
    for run_id in (run.root.run_id, run.run_id):
        client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])


def _headline(results: Results) -> dict[str, float | None]:
    """The figures a person looks for first."""
    metrics = read_json(results.evaluate / "metrics.json")
    benchmark = read_json(results.benchmark / "benchmark.json")
    names = ("AP", "AP50", "AP75")
    figures = {name: metrics["plain"].get(name) for name in names}
    figures |= {f"TTA_{name}": metrics["tta"].get(name) for name in names}
    return {**figures, "latency_ms_b1": benchmark.get("latency_ms_b1")}


def _log_model(run: StageRun, results: Results) -> str:
    """Log the detector with its code, so that it loads and serves without the project; returns its address."""
    import mlflow

    import yolo_core

    with mlflow.start_run(run_id=run.run_id, log_system_metrics=False):
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(SERVING_CODE),
            code_paths=[str(Path(yolo_core.__file__).parent)],
            artifacts={"weights": str(results.weights)},
            signature=_signature(),
            input_example=_example(results),
            pip_requirements=serving_requirements(),
        )
    return logged.model_uri


def _signature() -> Any:
    """The outputs and the parameters. Inputs stay open: a schema could not hold bytes, text and arrays at once."""
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Array, ColSpec, DataType, Object, ParamSchema, ParamSpec, Property, Schema

    from components.serving.detector_model import DEFAULTS

    box = [Property(name, DataType.double) for name in ("x1", "y1", "x2", "y2", "score")]
    box += [Property("class_id", DataType.long), Property("class_name", DataType.string)]
    types = {float: DataType.double, int: DataType.long}
    params = [ParamSpec(name, types[type(value)], value) for name, value in DEFAULTS.items()]
    return ModelSignature(outputs=Schema([ColSpec(Array(Array(Object(box))))]), params=ParamSchema(params))


def _example(results: Results) -> list[str]:
    """The first validation image as base64 text; a request may look like it."""
    record = min(read_json(results.annotations)["images"], key=lambda image: image["id"])
    image = require(results.data / "images" / "val" / record["file_name"], "prepare")
    return [base64.b64encode(image.read_bytes()).decode()]


def serving_requirements() -> list[str]:
    """The packages inference needs, at the versions in use; a build's own label (+cpu) is left off."""

    def pinned(package: str) -> str:
        return f"{package}=={importlib.metadata.version(package).partition('+')[0]}"

    return [pinned(package) for package in ("mlflow", *SERVING_PACKAGES)]


def _register(
    client: "MlflowClient", run: StageRun, results: Results, inputs: str, made_of: Lineage, model_uri: str
) -> "ModelVersion":
    """Create the version with its tags. Those a later run finds it by come with it, not after it."""
    from mlflow.exceptions import MlflowException

    name = registered_name(results.model)
    try:
        client.create_registered_model(name, description=f"Object detector {results.model}: image in, boxes out.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    model = client.get_logged_model(model_uri.removeprefix("models:/"))
    return client.create_model_version(
        name,
        source=model.artifact_location,
        run_id=run.run_id,
        model_id=model.model_id,
        tags={
            INPUTS_TAG: inputs,
            LINEAGE_TAG: json.dumps(made_of),
            SOURCE_TAG: os.environ.get(SOURCE_VARIABLE, ""),
            MODEL_TAG: results.model,
            PIPELINE_TAG: run.pipeline,
            PIPELINE_RUN_TAG: run.root.run_id,
            VALIDATION_TAG: manifest.validation_digest(results.data),
            WEIGHTS_TAG: sha256(results.weights),
        },
    )
