"""Promotion in a real registry: aliases, tags, repetition and rollback."""

import contextlib
import json
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import pytest
from parameter_reads import run
from stage_outputs import MODEL, Outputs, load_params, make_dataset, make_outputs

from components.files import sha256
from components.promotion.aliases import roll_back
from components.stages import promote, register
from components.tracking import connection
from yolo_core.errors import UserError

NAME = f"scaled-yolov4-{MODEL}"


class Registry(NamedTuple):
    """A registry with five versions that differ in correct objects (of 12) and latency."""

    first: Outputs  # 6 right, 10 ms
    better: Outputs  # 12 right, 10 ms
    worse: Outputs  # 1 right, 10 ms
    equal_but_slow: Outputs  # 12 right, 20 ms
    elsewhere: Outputs  # 12 right of other validation images


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Callable[[Path], str]) -> tuple[Path, Registry]:
    """The store with the versions registered and none judged, and a copy of its database, `filled.db`."""
    folder = tmp_path_factory.mktemp("registry")
    data, other = make_dataset(folder / "data"), make_dataset(folder / "other", seed=1)
    versions = Registry(
        make_outputs(folder / "1", data, right=6),
        make_outputs(folder / "2", data, seed=1),
        make_outputs(folder / "3", data, seed=2, right=1),
        make_outputs(folder / "4", data, seed=3, latency_ms=20.0),
        make_outputs(folder / "5", other, seed=4, device="another"),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", mlflow_database(folder))
        patch.chdir(folder)
        for outputs in versions:
            register.run(load_params(), model=MODEL, **outputs.paths)
    shutil.copy(folder / "mlflow.db", folder / "filled.db")
    return folder, versions


@pytest.fixture
def registry(filled: tuple[Path, Registry], monkeypatch: pytest.MonkeyPatch) -> Registry:
    """The store as it was filled; at one address for all tests, because MLflow takes long to open a new one."""
    folder, versions = filled
    opened = [contextlib.closing(sqlite3.connect(folder / name)) for name in ("filled.db", "mlflow.db")]
    with opened[0] as source, opened[1] as database:
        source.backup(database)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
    return versions


def judge(outputs: Outputs, *overrides: str, **flags: bool) -> dict[str, Any]:
    given = {"registered": outputs.registered, "data": outputs.data, "out": outputs.promoted}
    run(promote, load_params(*overrides), model=MODEL, **given, **flags)
    return json.loads(outputs.promoted.read_text())


def aliases() -> dict[str, int]:
    return {name: int(number) for name, number in connection.connect().get_registered_model(NAME).aliases.items()}


def tags(version: int) -> dict[str, str]:
    return connection.connect().get_model_version(NAME, str(version)).tags


def test_the_first_version_is_promoted(registry: Registry):
    record = judge(registry.first)
    assert (record["decision"], record["champion_before"], record["champion_after"]) == ("promote", None, 1)
    assert aliases() == {"champion": 1}


def test_a_better_one_is_promoted(registry: Registry):
    judge(registry.first)
    record = judge(registry.better)
    assert (record["decision"], record["champion_before"], record["champion_after"]) == ("promote", 1, 2)
    assert record["ap"]["challenger"] == 1
    assert record["ap"]["champion"] == pytest.approx(51 / 101)  # 6 of 12 right
    assert record["ap"]["gain_low"] > 0
    assert record["latency"] == {"champion_ms": 10.0, "challenger_ms": 10.0, "ratio": 1.0}
    assert aliases() == {"champion": 2, "previous_champion": 1}
    assert tags(2)["scaled_yolov4.decision"] == "promote"
    assert float(tags(2)["scaled_yolov4.ap_gain_low"]) == pytest.approx(record["ap"]["gain_low"], rel=1e-4)
    assert tags(2)["scaled_yolov4.latency_ratio"] == "1"


def test_a_worse_one_is_held(registry: Registry):
    judge(registry.first)
    record = judge(registry.worse)
    assert (record["decision"], record["champion_after"]) == ("hold", 1)
    assert aliases() == {"champion": 1, "challenger": 3}
    assert tags(3)["scaled_yolov4.decision"] == "hold"


def test_a_gain_within_the_noise_is_inconclusive(registry: Registry):
    judge(registry.first)
    record = judge(registry.better, "promote.min_ap_gain=0.45")  # the gain is 0.5 +- 0.25
    assert record["decision"] == "inconclusive"
    assert aliases() == {"champion": 1, "challenger": 2}


def test_a_slow_one_is_held_and_the_champion_leaves_the_challenger_alone(registry: Registry):
    judge(registry.first)
    assert judge(registry.equal_but_slow)["decision"] == "hold"
    assert judge(registry.equal_but_slow, "promote.max_latency_ratio=2")["decision"] == "promote"
    assert aliases() == {"champion": 4, "previous_champion": 1}


def test_faster_and_equally_good_is_enough(registry: Registry):
    judge(registry.equal_but_slow)
    record = judge(registry.better)  # the same detections in half the time
    assert record["ap"]["gain"] == 0
    assert record["latency"]["ratio"] == 0.5
    assert record["decision"] == "promote"


def test_repeating_changes_nothing(registry: Registry):
    for outputs in (registry.first, registry.better, registry.worse):
        judge(outputs)
        before = outputs.promoted.read_bytes(), aliases(), tags(1), tags(2), tags(3)
        judge(outputs)
        assert (outputs.promoted.read_bytes(), aliases(), tags(1), tags(2), tags(3)) == before


def test_the_champion_judged_by_other_thresholds_is_unchanged(registry: Registry):
    judge(registry.first)
    before = tags(1)
    record = judge(registry.first, "promote.confidence=0.9")
    assert (record["decision"], record["champion_after"]) == ("unchanged", 1)
    assert (aliases(), tags(1)) == ({"champion": 1}, before)


def test_rollback_goes_back_step_by_step_and_sticks(registry: Registry):
    judge(registry.first)
    judge(registry.equal_but_slow, "promote.max_latency_ratio=2")
    judge(registry.better)
    assert aliases() == {"champion": 2, "previous_champion": 4}
    record = judge(registry.better, rollback=True)
    assert (record["decision"], record["champion_before"], record["champion_after"]) == ("rollback", 2, 4)
    assert aliases() == {"champion": 4, "previous_champion": 1}
    assert judge(registry.better)["decision"] == "hold"  # a rolled-back version is not promoted again by itself
    assert judge(registry.better, rollback=True)["champion_after"] == 1
    assert aliases() == {"champion": 1, "challenger": 2}
    with pytest.raises(UserError, match="no previous champion"):
        judge(registry.better, rollback=True)


def test_rollback_without_a_registry_is_one_line(registry: Registry):
    with pytest.raises(UserError, match="no previous champion"):
        roll_back("yolov4-p5", "scaled-yolov4-yolov4-p5")


def test_the_champion_is_where_serving_looks(registry: Registry, tmp_path: Path):
    folder = tmp_path / "champions" / MODEL
    given = f"promote.champions={folder.parent}"

    def served() -> int:
        record = json.loads((folder / "champion.json").read_text())
        assert sha256(folder / record["weights"]) == record["sha256"]
        return record["version"]

    judge(registry.first, given)
    assert served() == 1
    judge(registry.better, given)
    assert served() == 2
    judge(registry.worse, given)
    assert served() == 2
    judge(registry.better, given, rollback=True)
    assert served() == 1
    assert {path.name for path in folder.iterdir()} == {"1", "2", "champion.json"}


def test_a_rollback_that_cannot_be_served_is_repeated(registry: Registry, tmp_path: Path):
    champions = tmp_path / "champions"
    judge(registry.first, f"promote.champions={champions}")
    judge(registry.better)  # where champions are published is remembered
    assert json.loads((champions / MODEL / "champion.json").read_text())["version"] == 2
    shutil.move(champions, tmp_path / "aside")
    champions.write_text("in the way")
    with pytest.raises(UserError, match=r"promote.champions = .* cannot be written"):
        judge(registry.better, rollback=True)
    assert aliases() == {"champion": 2, "previous_champion": 1}
    champions.unlink()
    shutil.move(tmp_path / "aside", champions)
    judge(registry.better, rollback=True)
    assert aliases()["champion"] == 1
    assert json.loads((champions / MODEL / "champion.json").read_text())["version"] == 1


def test_the_champion_is_in_the_object_store(registry: Registry, store):
    judge(registry.first, f"promote.champions=s3://{store.bucket}/champions")
    client = boto3.session.Session().client("s3")
    before = client.head_object(Bucket=store.bucket, Key=f"champions/{MODEL}/1/model.safetensors")["LastModified"]
    time.sleep(1.1)
    judge(registry.first, f"promote.champions=s3://{store.bucket}/champions")
    after = client.head_object(Bucket=store.bucket, Key=f"champions/{MODEL}/1/model.safetensors")["LastModified"]
    assert after == before  # nothing is sent twice
    listed = client.list_objects_v2(Bucket=store.bucket, Prefix="champions/")["Contents"]
    assert [entry["Key"].removeprefix(f"champions/{MODEL}/") for entry in listed] == [
        "1/model.safetensors",
        "champion.json",
    ]


def test_on_other_validation_images_the_champion_is_evaluated_again(registry: Registry):
    """The champion's weights are untrained: on the new images it finds almost nothing. Its stored detections,
    which are right on its own images, do not count; nor do latencies of different devices."""
    judge(registry.better)
    record = judge(registry.elsewhere)
    assert record["ap"]["champion"] < 0.1
    assert record["latency"]["ratio"] is None
    assert record["decision"] == "promote"


def test_data_that_the_version_was_not_evaluated_on_is_refused(registry: Registry, tmp_path: Path):
    judge(registry.first)
    with pytest.raises(UserError, match="not the validation images that version 2 was evaluated on"):
        promote.run(
            load_params(),
            model=MODEL,
            registered=registry.better.registered,
            data=registry.elsewhere.data,
            out=tmp_path / "promoted.json",
        )


def test_a_version_the_store_does_not_have_is_one_line(registry: Registry, tmp_path: Path):
    named = json.loads(registry.first.registered.read_text())
    path = tmp_path / "registered.json"
    path.write_text(json.dumps({**named, "version": 99}))
    with pytest.raises(UserError, match=r"registered\.json: version 99 .* is not in MLflow"):
        promote.run(load_params(), model=MODEL, registered=path, data=registry.first.data, out=tmp_path / "out.json")


def rewritten(outputs: Outputs, path: Path, **changes: Any) -> Path:
    """A copy of the file that `register` wrote, with other values."""
    path.write_text(json.dumps({**json.loads(outputs.registered.read_text()), **changes}))
    return path


def refused(outputs: Outputs, registered: Path, match: str) -> None:
    """`promote` ends in one line and no alias changes."""
    before = aliases()
    with pytest.raises(UserError, match=match) as error:
        promote.run(
            load_params(), model=MODEL, registered=registered, data=outputs.data, out=registered.with_name("out.json")
        )
    assert "\n" not in str(error.value)
    assert aliases() == before


def test_a_version_of_other_inputs_is_not_promoted(registry: Registry, tmp_path: Path):
    """As when the file was written for another registry, which numbers its versions 1, 2, ... as well."""
    judge(registry.first)
    other = json.loads(registry.worse.registered.read_text())["inputs_sha256"]
    path = rewritten(registry.better, tmp_path / "registered.json", inputs_sha256=other)
    refused(registry.better, path, r"registered\.json: version 2 .* was made from other inputs .*register` again")
    by_hand = connection.connect().create_model_version(NAME, source=str(tmp_path))
    path = rewritten(registry.better, tmp_path / "registered.json", version=int(by_hand.version))
    refused(registry.better, path, r"version 6 .* was made from other inputs .*register` again")


def test_a_file_of_another_model_or_kind_is_one_line(registry: Registry, tmp_path: Path):
    path = rewritten(registry.first, tmp_path / "registered.json", registered_model="scaled-yolov4-yolov4-p5")
    refused(registry.first, path, f"is about scaled-yolov4-yolov4-p5, not {NAME}; give --model or --registered")
    path.write_text("[1]")
    refused(registry.first, path, "not written by `scaled-yolov4 register`; run it again")


def test_a_deleted_champion_alias_does_not_make_the_next_one_the_first(registry: Registry):
    judge(registry.first)
    judge(registry.better)
    judge(registry.worse)
    client = connection.connect()
    client.delete_registered_model_alias(NAME, "champion")
    refused(registry.worse, registry.worse.registered, "no version has the alias `champion`, which versions 1, 2 had")
    with pytest.raises(UserError, match="none to roll back from; set it on the version in service, such as 1"):
        judge(registry.worse, rollback=True)
    client.set_registered_model_alias(NAME, "champion", "2")
    assert judge(registry.worse)["decision"] == "hold"
    assert aliases() == {"champion": 2, "challenger": 3, "previous_champion": 1}


def test_a_deleted_champion_version_is_remembered(registry: Registry):
    """Version 1 leaves with its own decision; that of version 3 still names it."""
    judge(registry.first)
    judge(registry.worse)
    connection.connect().delete_model_version(NAME, "1")
    refused(registry.worse, registry.worse.registered, "no version has the alias `champion`, which version 1 had")


def test_a_forced_version_is_the_champion_and_the_previous_one_is_kept(registry: Registry):
    judge(registry.first)
    judge(registry.better)
    connection.connect().delete_registered_model_alias(NAME, "champion")
    record = judge(registry.worse, force=True)
    assert (record["decision"], record["champion_before"], record["champion_after"]) == ("promote", None, 3)
    assert record["reason"] == "forced, without a comparison with any version"
    assert aliases() == {"champion": 3, "previous_champion": 1}
    assert judge(registry.worse, force=True)["reason"] == "version 3 is the champion already"
    assert judge(registry.better)["reason"].startswith("AP gain")  # the rules hold again
    assert aliases() == {"champion": 2, "previous_champion": 3}


def test_force_brings_back_what_was_rolled_back(registry: Registry):
    judge(registry.first)
    judge(registry.better)
    judge(registry.better, rollback=True)
    assert judge(registry.better)["decision"] == "hold"
    assert judge(registry.better, force=True)["reason"] == "forced, without a comparison with version 1"
    assert "scaled_yolov4.rolled_back" not in tags(2)
    assert aliases() == {"champion": 2, "previous_champion": 1}


def purge(version: int) -> None:
    """What `mlflow runs delete` and `mlflow gc` do to the run of a version."""
    client = connection.connect()
    run = str(client.get_model_version(NAME, str(version)).run_id)
    client.delete_run(run)
    client._tracking_client.store._hard_delete_run(run)  # pyright: ignore[reportAttributeAccessIssue]


def test_a_purged_run_is_named(registry: Registry, tmp_path: Path):
    judge(registry.first)
    purge(1)
    refused(
        registry.better, registry.better.registered, r"version 1 has no run in MLflow .*; move the alias `champion`"
    )
    purge(2)
    refused(registry.better, registry.better.registered, r"version 2 has no run .*; run `scaled-yolov4 register` again")
    # Registering the same results again makes a version that has a run, once.
    for _ in range(2):
        register.run(load_params(), model=MODEL, **{**registry.better.paths, "out": tmp_path / "again.json"})
        assert json.loads((tmp_path / "again.json").read_text())["version"] == 6


def test_a_purged_champion_is_named_to_a_version_judged_before(registry: Registry):
    """As to one that was not: nothing can be compared with the champion, so a recorded `hold` no longer stands."""
    judge(registry.first)
    assert judge(registry.worse)["decision"] == "hold"
    purge(1)
    for outputs in (registry.worse, registry.better):
        refused(outputs, outputs.registered, r"version 1 has no run in MLflow .*; move the alias `champion`")
    assert judge(registry.better, force=True)["champion_after"] == 2
    assert judge(registry.better)["champion_after"] == 2, "the champion itself needs no comparison"
    purge(3)
    refused(registry.worse, registry.worse.registered, r"version 3 has no run .*; run `scaled-yolov4 register` again")


def test_a_champion_made_by_hand_is_one_line(registry: Registry, tmp_path: Path):
    judge(registry.first)
    client = connection.connect()
    by_hand = client.create_model_version(NAME, source=str(tmp_path)).version
    client.set_registered_model_alias(NAME, "champion", by_hand)
    refused(registry.better, registry.better.registered, "version 6 has the alias `champion` but not the tag")
    assert judge(registry.better, force=True)["champion_after"] == 2
    assert aliases() == {"champion": 2, "previous_champion": 6}
    client.set_model_version_tag(NAME, by_hand, "scaled_yolov4.promotion", "{}")
    with pytest.raises(UserError, match=r"tag scaled_yolov4\.promotion of version 6 is not a decision"):
        judge(registry.better, rollback=True)


@pytest.fixture
def own(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outputs]:
    """Make and register a version of other classes than those of the registry."""
    monkeypatch.chdir(tmp_path)
    classes = ["bolt", "nut", "screw"]
    data = make_dataset(tmp_path / "own-data", seed=7, classes=classes)

    def made(name: str, seed: int, right: int, **given: Any) -> Outputs:
        outputs = make_outputs(tmp_path / name, data, seed=seed, right=right, **{"classes": classes, **given})
        register.run(load_params(), model=MODEL, **outputs.paths)
        return outputs

    return made


def test_a_champion_of_other_classes_is_no_rival(registry: Registry, own: Callable[..., Outputs]):
    """The first model of one's own data finds 1 of 12 objects; the champion finds 12 of 12 of its own."""
    judge(registry.better)
    poor, good = own("poor", seed=10, right=1), own("good", seed=11, right=12)
    record = judge(poor)
    assert (record["decision"], record["compared_with"]) == ("promote", None)
    assert record["reason"] == "a new task: version 2, the champion, detects other classes"
    assert aliases() == {"champion": 6, "previous_champion": 2}
    record = judge(good)
    assert (record["decision"], record["compared_with"], record["ap"]["champion"] < 0.2) == ("promote", 6, True)
    assert aliases() == {"champion": 7, "previous_champion": 6}


def test_tasks_that_share_a_registry_keep_their_champions_apart(registry: Registry, own: Callable[..., Outputs]):
    judge(registry.better)
    judge(own("own", seed=10, right=6))  # version 6
    record = judge(registry.worse)
    assert (record["decision"], record["champion_after"], record["compared_with"]) == ("hold", 6, 2)
    assert record["reason"].endswith("; look 1 at version 2, the last champion of the same classes")
    record = judge(registry.better)
    assert record["reason"] == "the last champion of its classes; version 6, the champion, detects other classes"
    assert aliases() == {"champion": 2, "challenger": 3, "previous_champion": 6}
    assert judge(own("worse", seed=11, right=1))["compared_with"] == 6


def test_classes_in_another_order_are_the_same_task(registry: Registry, tmp_path: Path):
    """The stored detections of the champion count by category id, so it is evaluated again: the images differ."""
    judge(registry.better)
    data = make_dataset(tmp_path / "data", classes=["square", "circle"])
    outputs = make_outputs(tmp_path / "outputs", data, seed=9, classes=["square", "circle"])
    register.run(load_params(), model=MODEL, **outputs.paths)
    assert judge(outputs)["compared_with"] == 2


def test_a_version_of_an_earlier_release_shows_its_classes_in_its_evidence(
    registry: Registry, own: Callable[..., Outputs]
):
    judge(registry.better)
    connection.connect().delete_model_version_tag(NAME, "2", "scaled_yolov4.classes_sha256")
    assert judge(own("own", seed=10, right=1))["reason"].startswith("a new task")
    assert judge(registry.worse)["compared_with"] == 2


def test_detections_kept_by_another_rule_are_not_compared(registry: Registry, tmp_path: Path, monkeypatch):
    """The champion is evaluated again by the challenger's rule; its weights are untrained and find next to nothing."""
    monkeypatch.chdir(tmp_path)
    judge(registry.better)
    kept = {"conf": 0.01, "iou": 0.5, "max_detections": 100}
    outputs = make_outputs(tmp_path / "outputs", registry.better.data, seed=8, right=6, suppression=kept)
    register.run(load_params(), model=MODEL, **outputs.paths)
    assert judge(outputs)["ap"]["champion"] < 0.1


def test_a_first_version_without_an_ap_is_not_promoted_unless_told(
    tmp_path: Path, mlflow_database: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_database(tmp_path))
    outputs = make_outputs(tmp_path / "outputs", make_dataset(tmp_path / "data"), measured=False)
    register.run(load_params(), model=MODEL, **outputs.paths)
    record = judge(outputs)
    assert (record["decision"], record["champion_after"]) == ("inconclusive", None)
    assert record["reason"].startswith("the first version, but its validation images have no objects: no AP; ")
    assert aliases() == {"challenger": 1}
    assert judge(outputs, force=True)["champion_after"] == 1
    assert aliases() == {"champion": 1}


def test_a_latency_of_something_never_scored_does_not_compete(registry: Registry, tmp_path: Path, monkeypatch):
    """As in the reports of earlier releases, whose rows have no AP: half the time would excuse a loss of AP."""
    monkeypatch.chdir(tmp_path)
    judge(registry.equal_but_slow)
    outputs = make_outputs(tmp_path / "outputs", registry.better.data, seed=8, latency_ms=5.0)
    report = outputs.paths["benchmark"] / "benchmark.json"
    content = json.loads(report.read_text())
    report.write_text(json.dumps({**content, "rows": [{k: v for k, v in content["rows"][0].items() if k != "ap"}]}))
    register.run(load_params(), model=MODEL, **outputs.paths)
    record = judge(outputs)
    assert record["latency"] == {"champion_ms": 20.0, "challenger_ms": None, "ratio": None}
    assert record["decision"] == "hold"
    assert record["reason"].endswith("; latencies are not comparable")


def test_each_version_compared_with_a_champion_needs_more_confidence(registry: Registry):
    """Of the 5 % over the life of a champion, k looks spend k / (k + 5): the first 1/6, the second 2/7 - 1/6 = 5/42."""
    judge(registry.first)
    held = judge(registry.worse)["ap"]
    assert (held["looks"], held["confidence"]) == (1, pytest.approx(1 - 0.05 / 6))
    found = judge(registry.better, "promote.min_ap_gain=0.45")
    assert (found["ap"]["looks"], found["ap"]["confidence"]) == (2, pytest.approx(1 - 0.05 * 5 / 42))
    assert "at 99.4048 % to" in found["reason"]
    assert found["reason"].endswith("; look 2 at version 1")
    assert tags(1)["scaled_yolov4.compared_with"] == "3,2"
    promising = judge(registry.better, "promote.min_ap_gain=0.2")
    assert promising["decision"] == "inconclusive"
    assert ": promising, at 95 % above the +0.2000 AP needed; at 99.4048 % that takes a gain of " in promising["reason"]
    again = judge(registry.worse, "promote.min_ap_gain=0.1")["ap"]
    assert again["looks"] == 1, "the same detections are no new chance"
    assert judge(registry.better)["decision"] == "promote"
    assert judge(registry.worse)["ap"]["looks"] == 1, "a new champion has a life of its own"


def test_a_version_held_for_its_latency_alone_spends_no_look(registry: Registry):
    """Version 4 takes 20 ms, twice the champion's 10; where 2.0 is allowed it is judged by its AP: its first look."""
    judge(registry.first)
    held = judge(registry.equal_but_slow)
    assert held["reason"] == "2.00 times the champion's latency is over 1.5; no look at version 1"
    assert (held["ap"]["looks"], held["ap"]["confidence"]) == (None, 0.95)
    assert "scaled_yolov4.compared_with" not in tags(1)
    assert judge(registry.worse)["ap"]["looks"] == 1
    assert judge(registry.equal_but_slow, "promote.max_latency_ratio=2")["ap"]["looks"] == 2
    assert tags(1)["scaled_yolov4.compared_with"] == "3,4"


def test_a_version_without_an_ap_spends_no_look(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its validation images have no objects, so the champion, evaluated again on them, has no AP either."""
    monkeypatch.chdir(tmp_path)
    judge(registry.first)
    data = make_dataset(tmp_path / "data", seed=2, objects=False)
    outputs = make_outputs(tmp_path / "outputs", data, seed=8, measured=False)
    register.run(load_params(), model=MODEL, **outputs.paths)
    record = judge(outputs)
    assert (record["decision"], record["ap"]["looks"]) == ("inconclusive", None)
    assert record["reason"] == "no AP could be measured on the validation images; no look at version 1"
    assert "scaled_yolov4.compared_with" not in tags(1)


def test_damaged_evidence_is_one_line(registry: Registry, monkeypatch: pytest.MonkeyPatch):
    judge(registry.first)
    client = connection.connect()
    run_id = str(client.get_model_version(NAME, "1").run_id)
    path = Path(client.get_run(run_id).info.artifact_uri.removeprefix("file://")) / "evidence" / "metrics.json"
    whole = path.read_text()
    try:
        for text in ("[]", whole[:20], None):
            path.unlink() if text is None else path.write_text(text)
            refused(registry.better, registry.better.registered, "the evidence of version 1 in its run .* is damaged")
    finally:
        path.write_text(whole)


def test_a_database_of_another_mlflow_is_one_line(
    registry: Registry, filled: tuple[Path, Registry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shutil.copy(filled[0] / "filled.db", tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        database.execute("update alembic_version set version_num = '0123456789ab'")
        database.commit()
    refused_here = pytest.raises(UserError, match="cannot be used: Detected out-of-date database schema")
    with refused_here as error:
        judge(registry.first)
    assert "\n" not in str(error.value)
