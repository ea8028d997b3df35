"""The stage `promote`: decide whether a version is significantly better than the champion, and if so promote it.

Both are compared on the same images. Each judged version carries its decision as tags, so a decision that still holds
is read back instead of repeated. The judgement is in `components.promotion.judgement`, its rule and record in
`components.promotion.decision`.
"""

from pathlib import Path

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
from components.promotion.contenders import registered_version
from components.promotion.decision import Decision
from components.promotion.judgement import Judgement
from components.tracking.connection import connect, reaching
from components.tracking.model_versions import CHAMPION, aliases_of
from yolo_core import progress as progress_
from yolo_core.atomic import write_json
from yolo_core.errors import UserError


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
        decision = roll_back(model, params.registered_name(model), params.promote.champions)
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
        version = registered_version(client, params.registered_name(model), registered)
        aliases = aliases_of(client, version.name)
        judgement = Judgement(params, client, model, version, aliases.get(CHAMPION), data, progress)
        settled = _settled(judgement, force)
        decision = settled or (_forced(judgement) if force else judgement.decide())
        publish_champion(client, version.name, decision.champion_after, params.promote.champions)
        if not settled:
            record(client, version, decision)
            set_aliases(client, version.name, aliases, aliases_after(decision, aliases))
        return decision


def _settled(judgement: Judgement, force: bool) -> Decision | None:
    """The existing decision, if still valid: made with these thresholds, or the version is the champion already.

    Raises UserError if it was a comparison that could not be repeated, because the run of the champion was purged.
    """
    version, champion = judgement.version, judgement.champion
    made = None if force else decision_on(version)
    if made and made.thresholds == judgement.thresholds and made.champion_after == champion:
        if made.compared_with and made.decision != "promote":
            judgement.check_comparable()
        return made
    if champion == int(version.version):
        return judgement.made("unchanged", f"version {version.version} is the champion already")
    return None


def _forced(judgement: Judgement) -> Decision:
    """Promote the version without a comparison, even if it was rolled back before."""
    version, champion = judgement.version, judgement.champion
    if ROLLED_BACK_TAG in version.tags:
        judgement.client.delete_model_version_tag(version.name, version.version, ROLLED_BACK_TAG)
    other = f"version {champion}" if champion else "any version"
    return judgement.made("promote", f"forced, without a comparison with {other}")
