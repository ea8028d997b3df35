"""The stage `promote`: decide whether a version is significantly better than the champion, and if so promote it.

Both are compared on the same images. Each judged version carries its decision as tags, so a decision that still holds
is read back instead of repeated. The rule and the record are in `components.promotion.decision`.
"""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from components.datasets.manifest import validation_digest
from components.params import Params
from components.promotion.aliases import (
    ROLLED_BACK_TAG,
    aliases_after,
    decision_on,
    publish_champion,
    record,
    roll_back,
    set_aliases,
)
from components.promotion.contenders import FORCE, champion_version, check_never_championed, registered_version
from components.promotion.decision import ApComparison, Decision, LatencyComparison, Verdict, decide, paired_gain
from components.promotion.evidence import detect_again, latency_ratio, registered_evidence
from components.tracking.connection import connect, reaching
from components.tracking.model_versions import CHAMPION, VALIDATION_TAG, aliases_of
from yolo_core import progress as progress_
from yolo_core.atomic import write_json
from yolo_core.errors import UserError
from yolo_core.evaluate.coco_metrics import score

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion


def run(
    params: Params,
    *,
    model: str,
    registered: Path,
    data: Path,
    out: Path,
    rollback: bool = False,
    force: bool = False,
    progress: progress_.Progress = progress_.silent,
) -> dict[str, object]:
    """Judge the version named in `registered`, set the aliases, and write the decision with its numbers to `out`.

    rollback: restore the previous champion instead, without judging. force: promote the version without judging it.
    In every case the champion is published to `promote.champions`.
    Raises UserError if an input is missing, the version or MLflow cannot be found, the champion cannot be compared
    with, or there is no previous champion.
    """
    if rollback and force:
        raise UserError("--rollback and --force: give one of them")
    if rollback:
        decision = roll_back(model, params.promote.champions)
    else:
        decision = _judge(params, model, registered, data, force, progress)
    document = decision.document()
    write_json(out, document)
    return {key: document[key] for key in ("decision", "reason", "champion_after")}


def _judge(
    params: Params, model: str, registered: Path, data: Path, force: bool, progress: progress_.Progress
) -> Decision:
    """Decide about the version, unless that is settled, and record it in the registry."""
    client = connect()
    with reaching():
        version = registered_version(client, model, registered)
        aliases = aliases_of(client, version.name)
        champion = aliases.get(CHAMPION)
        settled = _settled(params, model, version, champion, force)
        if force and not settled:
            decision = _forced(params, client, model, version, champion)
        else:
            decision = settled or _decide(params, client, model, version, champion, data, progress)
        publish_champion(client, version.name, decision.champion_after, params.promote.champions)
        if not settled:
            record(client, version, decision)
            set_aliases(client, version.name, aliases, aliases_after(decision, aliases))
        return decision


def _settled(params: Params, model: str, version: "ModelVersion", champion: int | None, force: bool) -> Decision | None:
    """The decision if none is left to make: it was made with these thresholds, or the version is the champion."""
    made = None if force else decision_on(version)
    if made and made.thresholds == _thresholds(params) and made.champion_after == champion:
        return made
    if champion == int(version.version):
        reason = f"version {version.version} is the champion already"
        return _decision(params, model, version, champion, "unchanged", reason)
    return None


def _forced(
    params: Params, client: "MlflowClient", model: str, version: "ModelVersion", champion: int | None
) -> Decision:
    """Promote the version without a comparison, even if it was rolled back before."""
    if ROLLED_BACK_TAG in version.tags:
        client.delete_model_version_tag(version.name, version.version, ROLLED_BACK_TAG)
    reason = f"forced, without a comparison with {f'version {champion}' if champion else 'any version'}"
    return _decision(params, model, version, champion, "promote", reason)


def _decide(
    params: Params,
    client: "MlflowClient",
    model: str,
    version: "ModelVersion",
    champion: int | None,
    data: Path,
    progress: progress_.Progress,
) -> Decision:
    """Compare the version with the champion and decide."""
    made = partial(_decision, params, model, version, champion)
    number = version.version
    if version.tags.get(ROLLED_BACK_TAG):
        reason = f"version {number} was rolled back; delete its tag {ROLLED_BACK_TAG} to have it judged again"
        return made("hold", reason)
    if champion is None:
        check_never_championed(client, version.name)
        return made("promote", "the first version")
    if version.tags[VALIDATION_TAG] != validation_digest(data):
        raise UserError(
            f"{data}: not the validation images that version {number} was evaluated on; "
            "run `scaled-yolov4 evaluate` and `register` on them"
        )
    defender = champion_version(client, version.name, champion)
    mine = registered_evidence(client, version, "run `scaled-yolov4 register` again")
    theirs = registered_evidence(client, defender, f"move the alias `{CHAMPION}` to another version; {FORCE}")
    same_images = defender.tags[VALIDATION_TAG] == version.tags[VALIDATION_TAG]
    detections = theirs.detections if same_images else detect_again(params, defender, data, progress)
    annotations, judge = data / "annotations" / "instances_val.json", params.evaluate.judge
    before, after = (score(annotations, found, judge=judge) for found in (detections, mine.detections))
    settings = params.promote
    gain = paired_gain(
        before, after, samples=settings.bootstrap_samples, confidence=settings.confidence, seed=params.seed
    )
    ratio = latency_ratio(theirs, mine)
    verdict, reason = decide(gain, ratio, settings)
    if ratio is None:
        reason += "; latencies are not comparable"
    latency = LatencyComparison(theirs.latency_ms, mine.latency_ms, ratio)
    return made(verdict, reason, ApComparison.of(before, after, gain), latency)


def _decision(
    params: Params,
    model: str,
    version: "ModelVersion",
    champion: int | None,
    verdict: Verdict,
    reason: str,
    ap: ApComparison | None = None,
    latency: LatencyComparison | None = None,
) -> Decision:
    number = int(version.version)
    return Decision(
        model=model,
        decision=verdict,
        reason=reason,
        champion_before=champion,
        champion_after=number if verdict == "promote" else champion,
        version=number,
        ap=ap,
        latency=latency,
        thresholds=_thresholds(params),
    )


def _thresholds(params: Params) -> dict[str, float | int]:
    return params.promote.model_dump(exclude={"champions"})
