"""The gate: is a new version better than the champion, surely, on the same images? Then it takes its place.

The registry's aliases say who is who: `champion` is in service, `challenger` is the latest version that was judged
and did not take its place, `previous_champion` is whom a rollback brings back. Each judged version carries its
record as tags, so a decision that still stands is read back rather than made again.
"""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from components.datasets.manifest import validation_digest
from components.files import read_json, require
from components.params import Params, PromoteParams
from components.tracking.connection import connect, reaching, shown_uri
from components.tracking.model_versions import (
    CHALLENGER,
    CHAMPION,
    EVIDENCE,
    PREVIOUS,
    VALIDATION_TAG,
    aliases_of,
    registered_name,
    version_weights,
)
from yolo_core import progress as progress_
from yolo_core.atomic import write_json
from yolo_core.errors import UserError
from yolo_core.evaluate.coco_metrics import score
from yolo_core.evaluate.coco_score import CocoScore
from yolo_core.evaluate.detections import Detections
from yolo_core.evaluate.resampling import ap_for_image_counts

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

RECORD_TAG = "scaled_yolov4.promotion"
ROLLED_BACK_TAG = "scaled_yolov4.rolled_back"

Decision = Literal["promote", "hold", "inconclusive"]
Record = dict[str, Any]


@dataclass(frozen=True)
class Gain:
    """AP of the challenger less AP of the champion, and the one-sided confidence bounds of it (0..1)."""

    point: float
    low: float
    high: float


@dataclass(frozen=True)
class Evidence:
    """What a version was registered with. latency_ms: p50 at batch 1; device: what that was measured on."""

    detections: Detections
    latency_ms: float | None
    device: Any


def run(
    params: Params,
    *,
    model: str,
    registered: Path,
    data: Path,
    out: Path,
    rollback: bool = False,
    progress: progress_.Progress = progress_.silent,
) -> dict[str, Any]:
    """Judge the version named in `registered`, set the aliases, and write the decision with its numbers to `out`.

    With `rollback`, bring back the previous champion instead; nothing is judged. Whoever is champion then is put where
    `promote.champions` says.
    Raises UserError when an input is missing, the version or MLflow cannot be found, or there is no one to bring back.
    """
    place = params.promote.champions
    record = rollback_champion(model, place) if rollback else _judge(params, model, registered, data, progress)
    write_json(out, record)
    return {key: record[key] for key in ("decision", "reason", "champion_after")}


def decide(gain: Gain | None, latency_ratio: float | None, thresholds: PromoteParams) -> tuple[Decision, str]:
    """The decision and its reason, from the AP gain and challenger / champion latency.

    A challenger over `max_latency_ratio` is held. Otherwise it must surely gain more than `min_ap_gain`; one at or
    under `faster_ratio` must surely lose less than `max_ap_loss` instead, if that asks less. "Surely": the lower
    bound of the gain lies above that bar. When the upper bound does not reach above it, the answer is hold; in
    between it is open. A ratio of None (not comparable) is left out; a gain of None (no truth) leaves it open.
    """
    t = thresholds
    if latency_ratio is not None and latency_ratio > t.max_latency_ratio:
        return "hold", f"{latency_ratio:.2f} times the champion's latency is over {t.max_latency_ratio:g}"
    if gain is None:
        return "inconclusive", "no AP could be measured on the validation images"
    is_faster = latency_ratio is not None and latency_ratio <= t.faster_ratio
    bar = min(t.min_ap_gain, -t.max_ap_loss) if is_faster else t.min_ap_gain
    needed = f"{bar:+.4f} AP needed{' of a faster model' if is_faster else ''}"
    bounds = f"AP gain {gain.point:+.4f} lies in {gain.low:+.4f} to {gain.high:+.4f} at {t.confidence:.0%}"
    if gain.low > bar:
        return "promote", f"{bounds}: surely more than the {needed}"
    if gain.high <= bar:
        return "hold", f"{bounds}: surely not more than the {needed}"
    return "inconclusive", f"{bounds}: not surely more or less than the {needed}"


def paired_gain(
    champion: CocoScore, challenger: CocoScore, *, samples: int, confidence: float, seed: int
) -> Gain | None:
    """The AP gain with bounds by the bootstrap over images; both are judged on each resample of the same images.

    Each bound alone holds with `confidence`. None when there is no truth to measure by.
    """
    before, after = champion.figures["AP"], challenger.figures["AP"]
    if before is None or after is None:
        return None
    images = len(champion.image_ids)
    counts = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=samples)
    gains = ap_for_image_counts(challenger, counts) - ap_for_image_counts(champion, counts)
    low, high = np.nanquantile(gains, (1 - confidence, confidence))
    return Gain(after - before, float(low), float(high))


def _judge(params: Params, model: str, registered: Path, data: Path, progress: progress_.Progress) -> Record:
    named = read_json(require(registered, "register"))
    client = connect()
    with reaching():
        version = _version(client, named, registered)
        aliases = aliases_of(client, version.name)
        number, champion = int(version.version), aliases.get(CHAMPION)
        thresholds = params.promote.model_dump(exclude={"champions"})
        if standing := _standing(version, champion, thresholds):
            _serve(client, version.name, champion, params.promote.champions)
            return standing
        record: Record = {
            "model": model,
            "decision": "hold",
            "reason": "",
            "champion_before": champion,
            "champion_after": champion,
            "version": number,
            "ap": None,
            "latency": None,
            "thresholds": thresholds,
        }
        if champion == number:
            _serve(client, version.name, champion, params.promote.champions)
            return {**record, "decision": "unchanged", "reason": f"version {number} is the champion already"}
        record |= _verdict(params, client, version, champion, data, progress)
        if record["decision"] == "promote":
            record["champion_after"] = number
        _serve(client, version.name, record["champion_after"], params.promote.champions)
        _tag(client, version, record)
        _set_aliases(client, version.name, aliases, _aliases_after(record, aliases))
        return record


def _serve(client: "MlflowClient", name: str, number: int | None, place: str | None) -> None:
    """Put the version that is, or becomes, the champion where serving looks for it.

    That comes before the aliases change: when it fails, the same command does all of it again.
    """
    from components.tracking import champions  # boto3 takes time

    if number is not None and (place := place or champions.place_of(client, name)):
        champions.publish(client, name, number, place)


def _version(client: "MlflowClient", named: dict[str, Any], registered: Path) -> "ModelVersion":
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version(named["registered_model"], str(named["version"]))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise UserError(
            f"{registered}: version {named['version']} of {named['registered_model']} is not in MLflow at "
            f"{shown_uri()}; run `scaled-yolov4 register` again"
        ) from None


def _standing(version: "ModelVersion", champion: int | None, thresholds: dict[str, Any]) -> Record | None:
    """The record of this version when it was judged by these thresholds and the champion is the one it left."""
    record = json.loads(version.tags.get(RECORD_TAG, "null"))
    stands = record and record["thresholds"] == thresholds and record["champion_after"] == champion
    return record if stands else None


def _verdict(
    params: Params,
    client: "MlflowClient",
    version: "ModelVersion",
    champion: int | None,
    data: Path,
    progress: progress_.Progress,
) -> Record:
    """Decision, reason and the numbers behind them."""
    if version.tags.get(ROLLED_BACK_TAG):
        reason = f"version {version.version} was rolled back; delete its tag {ROLLED_BACK_TAG} to have it judged again"
        return {"decision": "hold", "reason": reason}
    if champion is None:
        return {"decision": "promote", "reason": "the first version"}
    if version.tags[VALIDATION_TAG] != validation_digest(data):
        raise UserError(
            f"{data}: not the validation images that version {version.version} was evaluated on; "
            "run `scaled-yolov4 evaluate` and `register` on them"
        )
    defender = client.get_model_version(version.name, str(champion))
    mine, theirs = _evidence(client, version), _evidence(client, defender)
    same_images = defender.tags[VALIDATION_TAG] == version.tags[VALIDATION_TAG]
    detections = theirs.detections if same_images else _detect_again(params, defender, data, progress)
    annotations = data / "annotations" / "instances_val.json"
    judge = params.evaluate.judge
    before, after = (score(annotations, found, judge=judge) for found in (detections, mine.detections))
    settings = params.promote
    gain = paired_gain(
        before, after, samples=settings.bootstrap_samples, confidence=settings.confidence, seed=params.seed
    )
    ratio = _latency_ratio(theirs, mine)
    decision, reason = decide(gain, ratio, settings)
    if ratio is None:
        reason += "; latencies are not comparable"
    return {
        "decision": decision,
        "reason": reason,
        "ap": {
            "champion": before.figures["AP"],
            "challenger": after.figures["AP"],
            "gain": gain and gain.point,
            "gain_low": gain and gain.low,
            "gain_high": gain and gain.high,
            "images": len(after.image_ids),
        },
        "latency": {"champion_ms": theirs.latency_ms, "challenger_ms": mine.latency_ms, "ratio": ratio},
    }


def _evidence(client: "MlflowClient", version: "ModelVersion") -> Evidence:
    """What was stored with a version at its registration."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(client.download_artifacts(str(version.run_id), EVIDENCE, place))
        benchmark = read_json(folder / "benchmark.json")
        detections = Detections.of(read_json(folder / "detections.json"))
        return Evidence(detections, benchmark.get("latency_ms_b1"), benchmark.get("device"))


def _latency_ratio(champion: Evidence, challenger: Evidence) -> float | None:
    """Challenger / champion; None when one was not measured or they were measured on different devices."""
    if not champion.latency_ms or not challenger.latency_ms or champion.device != challenger.device:
        return None
    return challenger.latency_ms / champion.latency_ms


def _detect_again(params: Params, version: "ModelVersion", data: Path, progress: progress_.Progress) -> Detections:
    """Detections of a registered version's weights on the current validation images.

    Classes are matched by name; those this data does not have cannot be right here and are left out.
    """
    from components.datasets.prepared import load_prepared
    from yolo_core.device import pick_device
    from yolo_core.evaluate.predict import predict
    from yolo_core.evaluate.tta import Plain
    from yolo_core.models.fuse import fuse
    from yolo_core.models.weights import load_detector

    dataset, device = load_prepared(data, "val"), pick_device(params.train.device)
    with tempfile.TemporaryDirectory() as place:
        loaded = load_detector(version_weights(version, Path(place, "model.safetensors")), device=device)
    ids = dict(zip(dataset.classes, dataset.category_ids, strict=True))
    dataset.category_ids = [ids.get(name, -1) for name in loaded.classes]  # of the classes it detects
    fused = fuse(loaded.model)
    found = predict(
        Plain(fused),
        dataset,
        size=loaded.size,
        batch=params.evaluate.batch,
        suppression=params.evaluate.suppression,
        stride=fused.input_stride,
        device=device,
        label="evaluate champion",
        progress=progress,
    )
    return found.where(found.category_id >= 0)


def _tag(client: "MlflowClient", version: "ModelVersion", record: Record) -> None:
    """Put the decision and its numbers on the version: one tag each to read, one with the whole record."""
    numbers = {"decision": record["decision"], "reason": record["reason"], "champion_before": record["champion_before"]}
    numbers |= {f"ap_{name}": value for name, value in (record["ap"] or {}).items()}
    numbers |= {f"latency_{name}": value for name, value in (record["latency"] or {}).items()}
    for name, value in numbers.items():
        client.set_model_version_tag(version.name, version.version, f"scaled_yolov4.{name}", _text(value))
    client.set_model_version_tag(version.name, version.version, RECORD_TAG, json.dumps(record))


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _aliases_after(record: Record, aliases: dict[str, int]) -> dict[str, int | None]:
    """Who is who after a decision; None takes an alias away."""
    number, before = record["version"], record["champion_before"]
    if record["decision"] != "promote":
        return {CHALLENGER: number}
    challenger = aliases.get(CHALLENGER)
    return {CHALLENGER: None if challenger == number else challenger, PREVIOUS: before, CHAMPION: number}


def _set_aliases(client: "MlflowClient", name: str, now: dict[str, int], wanted: dict[str, int | None]) -> None:
    """Change the aliases that differ, in the order given."""
    for alias, number in wanted.items():
        if number == now.get(alias):
            continue
        if number is None:
            client.delete_registered_model_alias(name, alias)
        else:
            client.set_registered_model_alias(name, alias, str(number))


def rollback_champion(model: str, place: str | None = None) -> Record:
    """Make the previous champion the champion again, and remember that the one it replaces was rolled back.

    place: where champions are put; None takes where they were put before.
    """
    from mlflow.exceptions import MlflowException

    name = registered_name(model)
    client = connect()
    with reaching():
        try:
            aliases = aliases_of(client, name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            aliases = {}
        champion, previous = aliases.get(CHAMPION), aliases.get(PREVIOUS)
        if champion is None or previous is None or previous == champion:
            raise UserError(f"{name}: there is no previous champion to bring back")
        _serve(client, name, previous, place)
        client.set_model_version_tag(name, str(champion), ROLLED_BACK_TAG, "true")
        # The champion first: a kill in between leaves a registry that serves, and a rollback that can be repeated.
        earlier = _predecessor(client, name, previous)
        _set_aliases(client, name, aliases, {CHAMPION: previous, PREVIOUS: earlier})
    return {
        "model": model,
        "decision": "rollback",
        "reason": f"version {champion} was rolled back by hand",
        "champion_before": champion,
        "champion_after": previous,
        "version": previous,
        "ap": None,
        "latency": None,
        "thresholds": None,
    }


def _predecessor(client: "MlflowClient", name: str, number: int) -> int | None:
    """The champion that a version took over from."""
    record = json.loads(client.get_model_version(name, str(number)).tags.get(RECORD_TAG, "null"))
    return record["champion_before"] if record else None
