"""The command `retrain`: decide by thresholds what changed data require, and do it.

The current prepared data are compared with the champion's. No change: nothing is done. A small one: the champion is
evaluated on them. A larger one: the champion is fine-tuned. Other classes, anchors that no longer fit, mostly new
images, or other parameters, code or image than the champion's: train from scratch. The decision, with its numbers and
a cost estimate, is written as JSON and as a Markdown page, and recorded in MLflow.
"""

import math
import os
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from components import telemetry
from components.datasets import manifest
from components.evaluation import measurement
from components.evaluation.inputs import load_inputs
from components.files import DECISION, DECISION_PAGE, MANIFEST, require
from components.lineage.record import SOURCE_TAG, SOURCE_VARIABLE, Lineage, judged_alike, lineage, of_version
from components.params import Params
from components.promotion.contenders import check_never_championed
from components.retraining import champion as champions
from components.retraining.cost import estimate
from components.retraining.decision import TRAINING, Action, Decision, decide
from components.retraining.page import page
from components.tracking.connection import connect, reaching
from components.tracking.model_versions import CHALLENGER, CHAMPION, version_of
from components.tracking.runs import stage_run
from components.workspace import DATA, OUTPUTS
from yolo_core import progress as progress_
from yolo_core.atomic import write_json, write_text
from yolo_core.errors import UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion


def run(
    params: Params,
    *,
    data: Path = DATA,
    out: Path = OUTPUTS / "retrain",
    dry_run: bool = False,
    force: bool = False,
    train: bool = True,
    progress: progress_.Progress = progress_.silent,
) -> dict[str, str]:
    """Decide for every model in the parameters, write <out>/<model>/decision.{json,md}, and act unless `dry_run`.

    force: train every model from scratch, even if nothing changed. train: False leaves training to the caller.
    Returns the action per model. Raises UserError if the data are missing, MLflow cannot be reached, or a stage that it
    started fails.
    """
    decisions = {model: _decide(params, model, data, out / model, force) for model in params.models}
    if not dry_run:
        for model, decision in decisions.items():
            if decision.action == "evaluate" and decision.weights:
                _evaluate_champion(params, model, data, out / model, Path(decision.weights), progress)
        if train:
            _train(decisions)
    return {model: f"{decision.action} ({decision.reason})" for model, decision in decisions.items()}


def _decide(params: Params, model: str, data: Path, out: Path, force: bool) -> Decision:
    """The decision for one model, written to `out` and recorded in MLflow."""
    after = manifest.read(require(data / MANIFEST, "prepare"))
    now = lineage(params, model, after["sha256"])
    client, name = connect(), params.registered_name(model)
    with tempfile.TemporaryDirectory() as folder:
        with reaching():
            judged = {alias: version_of(client, name, alias) for alias in (CHAMPION, CHALLENGER)}
            champion = _champion(client, name, judged[CHAMPION], Path(folder), force)
        found = champions.compared(champion, params, model, data, after, now) if champion else None
        action, reason = _action(params, found)
        if force:
            action, reason = "scratch", "requested with --force"
        elif alike := judged_alike(judged, now):
            action, reason = "unchanged", alike
            _note_source(client, judged, now)
        uses_weights = champion and action in ("evaluate", "fine-tune")
        weights = champions.copied_weights(champion, out) if champion and uses_weights else None
    epochs = _epochs(params, model, action)
    images, speed = after["splits"]["train"]["images"], champion.images_per_second if champion else None
    decision = Decision(
        model=model,
        action=action,
        reason=reason,
        champion=champion.version if champion else None,
        others=found.others if found else (),
        diff=found.diff if found else None,
        recall=found.recall if found else None,
        lineage=now,
        weights=str(weights) if weights else None,
        thresholds=params.retrain.model_dump(),
        cost=estimate(epochs * images, speed, params.retrain.price_per_hour) if epochs else None,
        overrides=_overrides(model, epochs, weights) if weights and action == "fine-tune" else (),
    )
    write_json(out / DECISION, decision.document())
    write_text(out / DECISION_PAGE, page(decision))
    _log(params, data, out, decision)
    return decision


def _champion(
    client: "MlflowClient", name: str, version: "ModelVersion | None", folder: Path, force: bool
) -> champions.Champion | None:
    """The champion; None when there never was one, or with `force` when it cannot be read."""
    try:
        if version:
            return champions.load(client, version, folder)
        check_never_championed(client, name)
    except UserError:
        if not force:
            raise
    return None


def _action(params: Params, found: champions.Comparison | None) -> tuple[Action, str]:
    if found is None:
        return "scratch", "there is no champion yet"
    return decide(found.diff, found.recall, params.retrain, found.others)


def _note_source(client: "MlflowClient", judged: Mapping[str, "ModelVersion | None"], now: Lineage) -> None:
    """Record the new fingerprint of a source with the same content, so that it need not be prepared next time."""
    source = os.environ.get(SOURCE_VARIABLE)
    for version in judged.values():
        if source and version and of_version(version) == now:
            client.set_model_version_tag(version.name, str(version.version), SOURCE_TAG, source)


def _epochs(params: Params, model: str, action: Action) -> int:
    """Epochs of the training for an action; 0 for none."""
    settings = params.train_settings(model)
    whole = settings.second_stage.epochs if settings.second_stage else settings.epochs
    return {"fine-tune": math.ceil(whole * params.retrain.fine_tune_epochs), "scratch": whole}.get(action, 0)


def _overrides(model: str, epochs: int, weights: Path) -> tuple[str, ...]:
    """Parameter overrides for fine-tuning: from the champion's weights, for fewer epochs in one stage."""
    own = {"weights": weights, "epochs": epochs, "second_stage": "null"}
    return tuple(f"train.per_model.{model}.{key}={value}" for key, value in own.items())


def _evaluate_champion(
    params: Params, model: str, data: Path, out: Path, weights: Path, progress: progress_.Progress
) -> None:
    """Evaluate the champion on the current data, into `out` and MLflow."""
    folder = out / "evaluate"
    loaded, dataset = load_inputs(model, data, weights, device=params.train.device)
    measured = measurement.measure(loaded, dataset, params, progress)
    measurement.write(measured, folder)
    with stage_run(params, data, "retrain", model) as record:
        record.log({f"champion/{name}": value for name, value in measured.summary().items()})
        record.artifact(folder, "evaluate")


def _train(decisions: Mapping[str, Decision]) -> None:
    """Run the stages for the models to train as a DVC experiment in this working folder."""
    chosen = [decision for decision in decisions.values() if decision.action in TRAINING]
    if not chosen:
        return
    changes = [part for decision in chosen for change in decision.overrides for part in ("-S", f"++{change}")]
    command = ["dvc", "exp", "run", *changes, *(f"promote@{decision.model}" for decision in chosen)]
    telemetry.turn_off()
    if code := subprocess.run(command, check=False).returncode:
        raise UserError(f"`{' '.join(command)}` ended with exit code {code}; fix what it reports and run it again")


def _log(params: Params, data: Path, out: Path, decision: Decision) -> None:
    diff = asdict(decision.diff) if decision.diff else {}
    numbers = {**diff, "recall": decision.recall, "hours": decision.cost.hours if decision.cost else None}
    with stage_run(params, data, "retrain", decision.model) as run:
        run.log({f"retrain/{key}": value for key, value in numbers.items() if isinstance(value, int | float)})
        run.tag(action=decision.action, reason=decision.reason)
        run.artifact(out / DECISION_PAGE)
        run.artifact(out / DECISION)
