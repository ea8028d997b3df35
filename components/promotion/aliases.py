"""What a decision changes in the registry: tags of the version, aliases, and the copy of the champion for serving.

`champion` is in service, `challenger` is the latest version that was judged and not promoted, `previous_champion` is
the one that a rollback restores.
"""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from components.promotion.decision import Decision
from components.tracking.connection import connect, reaching
from components.tracking.model_versions import CHALLENGER, CHAMPION, PREVIOUS, aliases_of
from yolo_core.errors import UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

DECISION_TAG = "scaled_yolov4.promotion"
LOOKS_TAG = "scaled_yolov4.compared_with"  # of a champion: the versions that were compared with it, in this order
ROLLED_BACK_TAG = "scaled_yolov4.rolled_back"


def decision_on(version: "ModelVersion") -> Decision | None:
    """The decision recorded on a version; None when it has not been judged. UserError for a tag that is damaged."""
    text = version.tags.get(DECISION_TAG)
    try:
        return Decision.parse(text) if text else None
    except (ValueError, LookupError, TypeError):
        raise UserError(
            f"{version.name}: the tag {DECISION_TAG} of version {version.version} is not a decision of this release; "
            "delete the tag to have the version judged again"
        ) from None


def record(client: "MlflowClient", version: "ModelVersion", decision: Decision) -> None:
    """Tag the version with the decision and its numbers: one readable tag each, and one with the whole record."""
    document = decision.document()
    numbers = {name: document[name] for name in ("decision", "reason", "champion_before")}
    for section in ("ap", "latency"):
        if isinstance(figures := document[section], Mapping):
            numbers |= {f"{section}_{name}": value for name, value in figures.items()}
    for name, value in numbers.items():
        text = f"{value:.6g}" if isinstance(value, float) else str(value)
        client.set_model_version_tag(version.name, version.version, f"scaled_yolov4.{name}", text)
    client.set_model_version_tag(version.name, version.version, DECISION_TAG, json.dumps(document))


def count_look(client: "MlflowClient", champion: "ModelVersion", number: int) -> int:
    """Which of the versions compared with a champion version `number` is, from 1; a new one is added to its tag.

    A version keeps its place when it is judged again: the same detections are no new chance.
    """
    looks = [int(one) for one in champion.tags.get(LOOKS_TAG, "").split(",") if one.strip().isdecimal()]
    if number not in looks:
        looks.append(number)
        client.set_model_version_tag(champion.name, champion.version, LOOKS_TAG, ",".join(map(str, looks)))
    return looks.index(number) + 1


def aliases_after(decision: Decision, aliases: Mapping[str, int]) -> dict[str, int | None]:
    """The aliases to set after a decision, in order; None deletes one."""
    if decision.decision != "promote":
        return {CHALLENGER: decision.version}
    challenger, previous = aliases.get(CHALLENGER), decision.champion_before or aliases.get(PREVIOUS)
    return {
        CHALLENGER: None if challenger == decision.version else challenger,
        PREVIOUS: None if previous == decision.version else previous,
        CHAMPION: decision.version,
    }


def set_aliases(
    client: "MlflowClient", name: str, current: Mapping[str, int], wanted: Mapping[str, int | None]
) -> None:
    """Change the aliases that differ, in the order of `wanted`."""
    for alias, number in wanted.items():
        if number == current.get(alias):
            continue
        if number is None:
            client.delete_registered_model_alias(name, alias)
        else:
            client.set_registered_model_alias(name, alias, str(number))


def publish_champion(client: "MlflowClient", name: str, number: int | None, location: str | None) -> None:
    """Copy the version that is, or is about to become, the champion to where serving reads it.

    Call it before the aliases change: when it fails, running the same command again repeats everything.
    location: None for where champions were published last.
    """
    from components.tracking import champions  # imports boto3, which is slow

    if number is not None and (location := location or champions.location_of(client, name)):
        champions.publish(client, name, number, location)


def roll_back(model: str, name: str, location: str | None = None) -> Decision:
    """Make the previous champion of a model the champion again, and tag the one it replaces as rolled back.

    name: of the registered model.
    location: where champions are published; None for where they were published last.
    """
    from mlflow.exceptions import MlflowException

    client = connect()
    with reaching():
        try:
            aliases = aliases_of(client, name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            aliases = {}
        champion, previous = aliases.get(CHAMPION), aliases.get(PREVIOUS)
        if champion is None and previous is not None:
            raise UserError(
                f"{name}: no version has the alias `{CHAMPION}`, so there is none to roll back from; set it on the "
                f"version in service, such as {previous}, which has the alias `{PREVIOUS}`"
            )
        if champion is None or previous is None or previous == champion:
            raise UserError(f"{name}: there is no previous champion to restore")
        publish_champion(client, name, previous, location)
        client.set_model_version_tag(name, str(champion), ROLLED_BACK_TAG, "true")
        # The champion first: a kill in between leaves a registry that serves, and a rollback that can be repeated.
        earlier = decision_on(client.get_model_version(name, str(previous)))
        set_aliases(client, name, aliases, {CHAMPION: previous, PREVIOUS: earlier.champion_before if earlier else None})
    return Decision(
        model=model,
        decision="rollback",
        reason=f"version {champion} was rolled back by hand",
        champion_before=champion,
        champion_after=previous,
        version=previous,
    )
