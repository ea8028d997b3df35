"""The command `retrain`: what a change of the data asks for, decided by thresholds, and then done.

The data as prepared now are compared with the data of the champion. Nothing new: it stays unchanged. Little: see how
the champion does on it. More: fine-tune the champion. Other classes, anchors that no longer fit, mostly new images, or
other parameters, code or image than the champion's: train from scratch. The decision with its numbers and an estimate
of its cost is a Markdown page and a record in MLflow.
"""

import math
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from components import telemetry
from components.datasets import manifest
from components.datasets.difference import DatasetDiff, compare
from components.datasets.prepared import load_prepared
from components.evaluation import measurement
from components.evaluation.inputs import load_inputs
from components.files import read_json, require
from components.lineage.record import SOURCE_TAG, SOURCE_VARIABLE, Lineage, judged_alike, lineage, of_version
from components.params import Params, RetrainParams, hyperparameters
from components.tracking.connection import connect, reaching
from components.tracking.model_versions import CHALLENGER, CHAMPION, EVIDENCE, version_of, version_weights
from components.tracking.runs import stage_run
from components.workspace import DATA, OUTPUTS
from yolo_core import progress as progress_
from yolo_core.anchors import quality, training_boxes
from yolo_core.atomic import replaced, write_json, write_text
from yolo_core.errors import UserError
from yolo_core.models import get_spec
from yolo_core.models.weights import load_detector

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

Action = Literal["unchanged", "evaluate", "fine-tune", "scratch"]
TRAINING: tuple[Action, ...] = ("fine-tune", "scratch")


@dataclass(frozen=True)
class Champion:
    """The champion's version, and what is known of the data and the training behind it; `weights` is its file."""

    version: int
    lineage: Lineage
    manifest: manifest.Manifest
    training: dict[str, Any]
    weights: Path


def decide(diff: DatasetDiff, recall: float, settings: RetrainParams, others: Sequence[str] = ()) -> tuple[Action, str]:
    """The action and its reason. recall: best possible recall of the champion's anchors on the new training boxes.

    others: what differs from the champion's besides the data: parameters, code, image.
    """
    if diff.classes_added or diff.classes_removed:
        changes = [f"+{name}" for name in diff.classes_added] + [f"-{name}" for name in diff.classes_removed]
        return "scratch", f"other classes: {', '.join(changes)}"
    if others:
        return "scratch", f"other {' and '.join(others)} than the champion's"
    if not diff.anything:
        return "unchanged", "every image and label is as the champion saw it"
    if recall < settings.min_recall:
        return "scratch", f"the champion's anchors reach {recall:.4f} of the boxes, under {settings.min_recall:g}"
    if diff.fraction >= settings.scratch_from:
        return "scratch", f"{diff.fraction:.1%} of the images changed, at least {settings.scratch_from:.1%}"
    causes = {
        f"{diff.fraction:.2%} of the images changed": diff.fraction >= settings.fine_tune_from,
        f"the classes shifted by {diff.class_shift:.3f}": diff.class_shift >= settings.class_shift,
        f"the box sizes shifted by {diff.size_shift:.3f}": diff.size_shift >= settings.size_shift,
    }
    if any(causes.values()):
        return "fine-tune", " and ".join(cause for cause, holds in causes.items() if holds)
    return "evaluate", f"only {diff.fraction:.2%} of the images changed, less than a fine-tuning is for"


def run(
    params: Params,
    *,
    data: Path = DATA,
    out: Path = OUTPUTS / "retrain",
    dry_run: bool = False,
    force: bool = False,
    train: bool = True,
    progress: progress_.Progress = progress_.silent,
) -> dict[str, Any]:
    """Decide for every model of the parameters, write <out>/<model>/decision.{json,md}, and do it unless `dry_run`.

    force: train every model from scratch, whatever changed. train: False leaves the training to the caller.
    Returns the action per model. Raises UserError when the data are missing, MLflow cannot be reached, or a stage
    that it started fails.
    """
    records = {model: _decide_one(params, model, data, out / model, force) for model in params.models}
    if not dry_run:
        for model, record in records.items():
            if record["action"] == "evaluate":
                _evaluate_champion(params, model, data, out / model, record["weights"], progress)
        if train:
            _train_again(records)
    return {model: f"{record['action']} ({record['reason']})" for model, record in records.items()}


def page(record: dict[str, Any]) -> str:
    """The decision as Markdown: what, why, the numbers and the thresholds they were held against."""
    title = f"# {record['model']}: {record['action']}\n\n{record['reason'][0].upper()}{record['reason'][1:]}.\n"
    cost = record["cost"]
    estimate = "nothing is trained" if cost is None else cost["text"]
    sections = {"Data": record["diff"], "Thresholds": record["thresholds"]}
    tables = [_table(name, rows) for name, rows in sections.items() if rows]
    champion = "none" if record["champion"] is None else f"version {record['champion']}"
    others = f"\n- changed besides the data: {_shown(record['others'])}" if champion != "none" else ""
    recall = "" if record["recall"] is None else f"\n- best possible recall of its anchors now: {record['recall']:.4f}"
    return "\n".join([title, f"- champion: {champion}{others}{recall}", f"- estimated cost: {estimate}", "", *tables])


def _decide_one(params: Params, model: str, data: Path, out: Path, force: bool) -> dict[str, Any]:
    """The decision for one model, written, and recorded in MLflow."""
    after = manifest.read(require(data / manifest.NAME, "prepare"))
    now = lineage(params, model, after["sha256"])
    client = connect()
    with tempfile.TemporaryDirectory() as place:
        with reaching():
            judged = {alias: version_of(client, model, alias) for alias in (CHAMPION, CHALLENGER)}
            version = judged[CHAMPION]
            champion = _champion(client, version, Path(place)) if version else None
        found = _compared(params, model, data, champion, after, now) if champion else _NO_CHAMPION
        if force:
            found = {**found, "action": "scratch", "reason": "asked for, whatever changed"}
        elif alike := judged_alike(judged, now):
            found = {**found, "action": "unchanged", "reason": alike}
            _note_source(client, judged, now)
        kept = None
        if champion and found["action"] in ("evaluate", "fine-tune"):
            kept = _copied(champion.weights, out)
            champion = replace(champion, weights=kept)
    record = {
        "model": model,
        **found,
        "lineage": now,
        "weights": kept and str(kept),
        "thresholds": params.retrain.model_dump(),
    }
    epochs = _epochs(params, model, record["action"])
    record["cost"] = _cost(epochs, after, champion, params.retrain.price_per_hour) if epochs else None
    record["overrides"] = _overrides(model, epochs, champion) if champion and record["action"] == "fine-tune" else []
    write_json(out / "decision.json", record)
    write_text(out / "decision.md", page(record))
    _log(params, data, model, out, record)
    return record


_NO_CHAMPION: dict[str, Any] = {
    "action": "scratch",
    "reason": "there is no champion yet",
    **dict.fromkeys(("champion", "diff", "recall")),
    "others": [],
}


def _note_source(client: "MlflowClient", judged: Mapping[str, "ModelVersion | None"], now: Lineage) -> None:
    """The source has another fingerprint and the same content: the next time that is known before it is prepared."""
    source = os.environ.get(SOURCE_VARIABLE)
    for version in judged.values():
        if source and version and of_version(version) == now:
            client.set_model_version_tag(version.name, str(version.version), SOURCE_TAG, source)


def _copied(weights: Path, out: Path) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    with replaced(out / weights.name) as temporary:
        shutil.copyfile(weights, temporary)
    return out / weights.name


def _champion(client: "MlflowClient", version: "ModelVersion", out: Path) -> Champion:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(client.download_artifacts(str(version.run_id), EVIDENCE, place))
        dataset, training = manifest.read(folder / manifest.NAME), read_json(folder / "train.json")
    return Champion(
        int(version.version),
        of_version(version),
        dataset,
        training,
        version_weights(version, out / f"champion-{version.version}.safetensors"),
    )


def _compared(
    params: Params, model: str, data: Path, champion: Champion, after: manifest.Manifest, now: Lineage
) -> dict[str, Any]:
    diff = compare(champion.manifest, after)
    recall = _recall(params, model, data, champion)
    before = champion.lineage
    others = [part for part in now if part != "data" and before.get(part, now[part]) != now[part]]
    action, reason = decide(diff, recall, params.retrain, others)
    return {
        "action": action,
        "reason": reason,
        "champion": champion.version,
        "others": others,
        "diff": asdict(diff),
        "recall": recall,
    }


def _recall(params: Params, model: str, data: Path, champion: Champion) -> float:
    """Best possible recall of the champion's anchors on the training boxes as they are now."""
    loaded = load_detector(champion.weights)
    boxes = training_boxes(load_prepared(data, "train"), loaded.size)
    anchor_t = hyperparameters(get_spec(model).hyp, params.train_settings(model).hyp).anchor_t
    return quality(boxes, loaded.model.anchors.flatten(0, 1).numpy(), anchor_t).recall if len(boxes) else 1.0


def _epochs(params: Params, model: str, action: Action) -> int:
    """Of the training that an action asks for; 0 for none."""
    settings = params.train_settings(model)
    whole = settings.second_stage.epochs if settings.second_stage else settings.epochs
    return {"fine-tune": math.ceil(whole * params.retrain.fine_tune_epochs), "scratch": whole}.get(action, 0)


def _cost(epochs: int, dataset: manifest.Manifest, champion: Champion | None, price: float) -> dict[str, Any]:
    """Hours of training, from the speed at which the champion was trained; unknown without one."""
    images = epochs * dataset["splits"]["train"]["images"]
    if champion is None:
        return {"images": images, "hours": None, "price": None, "text": f"{images} training images, speed unknown"}
    hours = images / champion.training["images_per_second"] / 3600
    text = f"{images} training images at {champion.training['images_per_second']:g} a second: {hours:.2g} hours"
    return {"images": images, "hours": hours, "price": hours * price, "text": f"{text}, price {hours * price:.2f}"}


def _overrides(model: str, epochs: int, champion: Champion) -> list[str]:
    """The parameters of a fine-tuning: from the champion's weights, for fewer epochs in one stage."""
    own = {"weights": champion.weights, "epochs": epochs, "second_stage": "null"}
    return [f"train.per_model.{model}.{key}={value}" for key, value in own.items()]


def _evaluate_champion(
    params: Params, model: str, data: Path, out: Path, weights: str, progress: progress_.Progress
) -> None:
    """How the champion does on the data as they are now, beside the decision and in MLflow."""
    place = out / "evaluate"
    loaded, dataset = load_inputs(model, data, Path(weights), device=params.train.device)
    measured = measurement.measure(loaded, dataset, params, progress)
    measurement.write(measured, place)
    with stage_run(params, data, "retrain", model) as record:
        record.log({f"champion/{name}": value for name, value in measured.summary().items()})
        record.artifact(place, "evaluate")


def _train_again(records: dict[str, dict[str, Any]]) -> None:
    """The stages for the models that are to be trained, by DVC as an experiment in this working folder."""
    chosen = [model for model, record in records.items() if record["action"] in TRAINING]
    if not chosen:
        return
    changes = [part for model in chosen for change in records[model]["overrides"] for part in ("-S", f"++{change}")]
    command = ["dvc", "exp", "run", *changes, *(f"promote@{model}" for model in chosen)]
    telemetry.turn_off()
    if code := subprocess.run(command, check=False).returncode:
        raise UserError(f"`{' '.join(command)}` ended with exit code {code}; mend what it says and run it again")


def _log(params: Params, data: Path, model: str, out: Path, record: dict[str, Any]) -> None:
    numbers = {**(record["diff"] or {}), "recall": record["recall"], "hours": (record["cost"] or {}).get("hours")}
    with stage_run(params, data, "retrain", model) as run:
        run.log({f"retrain/{key}": value for key, value in numbers.items() if isinstance(value, int | float)})
        run.tag(action=record["action"], reason=record["reason"])
        run.artifact(out / "decision.md")
        run.artifact(out / "decision.json")


def _table(name: str, rows: dict[str, Any]) -> str:
    lines = [f"| {key.replace('_', ' ')} | {_shown(value)} |" for key, value in rows.items()]
    return "\n".join([f"| {name} | |", "|---|---|", *lines, ""])


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
