"""The stage `register`: log one model's whole lineage to MLflow and register it as `<project>-<model>`.

A version is identified by a digest of everything that went into it: registering the same results again finds it.
What a later promotion needs from a version (its detections, its speed) is stored in the version's own run, whose files
no other run overwrites.

This module holds what the stage logs. The names, tags and description of versions are in
`components.tracking.model_versions`, the servable model in `components.serving.packaging`.
"""

import csv
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from components import files, made_of
from components.datasets import manifest
from components.datasets.digest import dataset_digest
from components.evolution.search_record import search_record
from components.files import read_json, require, sha256
from components.lineage.record import LINEAGE_TAG, SOURCE_TAG, SOURCE_VARIABLE, lineage
from components.params import Params
from components.serving.packaging import log_model
from components.tracking.connection import connect, reaching
from components.tracking.model_versions import (
    CLASSES_TAG,
    EVIDENCE,
    PIPELINE_RUN_TAG,
    VALIDATION_TAG,
    WEIGHTS_TAG,
    RegisteredVersion,
    version_of_inputs,
)
from components.tracking.runs import INPUTS_TAG, MODEL_TAG, PIPELINE_TAG, StageRun, flatten, stage_run
from yolo_core import progress as progress_
from yolo_core.atomic import write_json

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

# Columns of curves.csv -> metric names that training logs.
METRIC_OF = {name: f"train/{name}" for name in ("lr", "box", "obj", "cls", "loss")}
METRIC_OF |= {name: f"val/{name}" for name in ("AP", "AP50")}


@dataclass(frozen=True)
class Results:
    """Where the earlier stages left one model's results."""

    model: str
    """The model's name in `params.yaml`."""
    data: Path
    """The prepared dataset, a folder."""
    anchors: Path
    """The anchors, a JSON file."""
    hyp: Path | None
    """The evolved hyperparameters, a YAML file; None if there are none."""
    train: Path
    """The folder of the stage `train`."""
    evaluate: Path
    """The folder of the stage `evaluate`."""
    export: Path
    """The folder of the stage `export`."""
    benchmark: Path
    """The folder of the stage `benchmark`."""

    @property
    def weights(self) -> Path:
        return self.train / files.WEIGHTS

    @property
    def annotations(self) -> Path:
        return self.data / files.annotation_file("val")

    def needed(self) -> dict[str, Path]:
        """The files that identify a version, keyed by what they hold; UserError names a missing one and its stage."""
        return {
            "manifest": require(self.data / files.MANIFEST, "prepare"),
            "annotations": require(self.annotations, "prepare"),
            "anchors": require(self.anchors, "anchors"),
            "weights": require(self.weights, "train"),
            "metrics": require(self.evaluate / files.METRICS, "evaluate"),
            "detections": require(self.evaluate / files.DETECTIONS, "evaluate"),
            "export": require(self.export / files.EXPORT, "export"),
            "benchmark": require(self.benchmark / files.SPEED, "benchmark"),
            **({"hyp": self.hyp} if self.hyp and self.hyp.exists() else {}),
        }

    def digest(self) -> str:
        """SHA-256 (hex) of the content of the needed files."""
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
) -> dict[str, object]:
    """Log the run tree, register the version, and write a description of it to `out` (JSON).

    Raises UserError if a stage's result is missing or MLflow cannot be reached.
    """
    results = Results(model, data, anchors, hyp, train, evaluate, export, benchmark)
    inputs = results.digest()
    _check_made_of(results)
    client = connect()
    with reaching():
        version = version_of_inputs(client, params.registered_name(model), inputs)
        known = version is not None
        if version is None:
            _log_earlier_stages(params, results, inputs, progress)
            version = _log_version(params, results, inputs, client)
        else:  # the same results, perhaps of other code: they come from what made them last
            client.set_model_version_tag(version.name, str(version.version), LINEAGE_TAG, _lineage(params, results))
    described = RegisteredVersion.of(client, model, version)
    write_json(out, asdict(described))
    return {
        "name": described.registered_model,
        "version": described.version,
        "state": "known" if known else "new",
    }


def _check_made_of(results: Results) -> None:
    """Raise UserError if the results do not belong together, such as figures of an earlier training."""
    given = results.needed()
    training = {"manifest": given["manifest"], "anchors": given["anchors"], "hyp": given.get("hyp")}
    made_of.check(results.train / files.TRAINING, _again("train", results), **training)
    for stage, name in (("evaluate", "metrics"), ("export", "export"), ("benchmark", "benchmark")):
        made_of.check(given[name], _again(stage, results), weights=given["weights"], manifest=given["manifest"])


def _again(stage: str, results: Results) -> str:
    return f"scaled-yolov4 {stage} --model {results.model}"


def _log_earlier_stages(params: Params, results: Results, inputs: str, progress: progress_.Progress) -> None:
    """Log the parameters, metrics and files of every earlier stage to its run below the root."""
    steps: dict[str, Callable[[StageRun], None]] = {
        "train": lambda run: _log_train(run, params, results),
        "evaluate": lambda run: _log_figures(run, results.evaluate, files.METRICS),
        "export": lambda run: _log_figures(run, results.export, files.EXPORT),
        "benchmark": lambda run: _log_figures(run, results.benchmark, files.SPEED),
    }
    sections = params.model_dump(mode="json", by_alias=True, exclude_none=True)
    for stage, log in progress(steps.items(), "register"):
        # Training logs live, before these inputs exist; its run is identified by stage and model alone.
        with stage_run(params, results.data, stage, results.model, inputs=None if stage == "train" else inputs) as run:
            run.log_params(flatten(sections[stage]))
            log(run)


def _log_train(run: StageRun, params: Params, results: Results) -> None:
    """Log the weights, the settings of this model, and the curves unless training has logged them itself."""
    run.log_params(flatten(params.train_settings(results.model).model_dump(exclude_none=True), "model."))
    if not run.has_metrics and (results.train / files.CURVES).exists():
        run.log_history(_curves(results.train / files.CURVES))
    run.artifact(results.train)


def _curves(path: Path) -> Iterator[tuple[int, dict[str, float]]]:
    """The rows of curves.csv by step, under the names that training logs; empty cells are skipped."""
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            values = {METRIC_OF.get(name, name): float(value) for name, value in row.items() if value}
            yield int(values.pop("step")), values


def _log_figures(run: StageRun, folder: Path, report: str) -> None:
    """Log a stage's folder, and every number in its report as a metric."""
    figures = read_json(folder / report)
    for row in figures.pop("rows", []):  # of the benchmark; each becomes a section named after what was measured
        figures[f"rows/{row['backend']} {row['precision']} b{row['batch']}"] = row
    run.log(_numbers(figures))
    run.artifact(folder)


def _numbers(report: Mapping[str, object]) -> dict[str, float]:
    """The finite numbers of a parsed JSON document, with dotted names."""
    return {
        name: float(value)
        for name, value in flatten(report).items()
        if isinstance(value, int | float) and math.isfinite(value)
    }


def _log_version(params: Params, results: Results, inputs: str, client: "MlflowClient") -> "ModelVersion":
    """Log what all models of the run share and the servable model, and register that as a new version."""
    with stage_run(params, results.data, "register", results.model, inputs=inputs) as run:
        _log_pass(run, params, results, client)
        run.log(_headline(results))
        for name in ("manifest", "metrics", "detections", "benchmark"):
            run.artifact(results.needed()[name], EVIDENCE)
        run.artifact(require(results.train / files.TRAINING, "train"), EVIDENCE)
        suppression = read_json(results.evaluate / files.METRICS).get("suppression")
        model_uri = log_model(run.run_id, results.weights, _example(results), suppression)
        name = params.registered_name(results.model)
        return _register(client, name, run, results, inputs, _lineage(params, results), model_uri)


def _lineage(params: Params, results: Results) -> str:
    """What the weights come from, as JSON."""
    return json.dumps(lineage(params, results.model, manifest.read(results.data / files.MANIFEST)["sha256"]))


def _log_pass(run: StageRun, params: Params, results: Results, client: "MlflowClient") -> None:
    """Log what all models of a run share: parameters, data, anchors, hyperparameters, the DVC lock file."""
    everything = params.model_dump(mode="json", by_alias=True, exclude_none=True)
    run.root.log_params(flatten(everything))
    run.root.text(json.dumps(everything, indent=1), "params.json")
    run.root.log({f"{results.model}/{name}": value for name, value in _headline(results).items()})
    run.root.tag(dataset_sha256=manifest.read(results.data / files.MANIFEST)["sha256"])
    run.root.artifact(results.data / files.MANIFEST, "dataset")
    run.root.artifact(results.anchors, "anchors")
    if results.hyp:
        for path in (results.hyp, *(results.hyp.with_name(name) for name in (files.LEDGER, files.FITNESS_PLOT))):
            if path.exists():
                run.root.artifact(path, "evolve")
        if results.hyp.exists():
            _log_search(run, results.hyp)
    if Path("dvc.lock").exists():
        run.root.artifact(Path("dvc.lock"))
    _log_dataset(client, run, params, results.data)


def _log_search(run: StageRun, hyp: Path) -> None:
    """Log how the evolved hyperparameters were found."""
    found = search_record(hyp)
    run.root.log({f"evolve/{name}": value for name, value in found.figures.items()})
    if found.decision:
        run.root.tag(evolve_decision=found.decision)


def _log_dataset(client: "MlflowClient", run: StageRun, params: Params, data: Path) -> None:
    """Log the dataset as an MLflow dataset input, to the root and to the version's run."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = {"source": params.prepare.source, "location": params.prepare.location, "prepared": str(data)}
    digest = dataset_digest(data)[:36]  # MLflow's limit
    dataset = Dataset(params.prepare.source, digest, "local", json.dumps(source))
    for run_id in (run.root.run_id, run.run_id):
        client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])


def _headline(results: Results) -> dict[str, float | None]:
    """The main figures."""
    metrics = read_json(results.evaluate / files.METRICS)
    benchmark = read_json(results.benchmark / files.SPEED)
    names = ("AP", "AP50", "AP75")
    figures = {name: metrics["plain"].get(name) for name in names}
    figures |= {f"TTA_{name}": metrics["tta"].get(name) for name in names}
    return {**figures, "latency_ms_b1": benchmark.get("latency_ms_b1")}


def _example(results: Results) -> Path:
    """The first validation image."""
    record = min(read_json(results.annotations)["images"], key=lambda image: image["id"])
    return require(results.data / "images" / "val" / record["file_name"], "prepare")


def _register(
    client: "MlflowClient", name: str, run: StageRun, results: Results, inputs: str, made_of: str, model_uri: str
) -> "ModelVersion":
    """Create the version of a registered model along with its tags, so that a later run never finds it without them."""
    from mlflow.exceptions import MlflowException

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
            LINEAGE_TAG: made_of,
            SOURCE_TAG: os.environ.get(SOURCE_VARIABLE, ""),
            MODEL_TAG: results.model,
            PIPELINE_TAG: run.pipeline,
            PIPELINE_RUN_TAG: run.root.run_id,
            CLASSES_TAG: manifest.classes_digest(manifest.read(results.data / files.MANIFEST)),
            VALIDATION_TAG: manifest.validation_digest(results.data),
            WEIGHTS_TAG: sha256(results.weights),
        },
    )
