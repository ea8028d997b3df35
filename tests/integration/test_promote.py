"""Promotion in a real registry: aliases, tags, repetition and rollback."""

import json
import shutil
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
    """The store with the versions registered and none judged."""
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
    return folder, versions


@pytest.fixture
def registry(filled: tuple[Path, Registry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """A copy of the store for one test; the artifacts stay where they are."""
    folder, versions = filled
    shutil.copy(folder / "mlflow.db", tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return versions


def judge(outputs: Outputs, *overrides: str, rollback: bool = False) -> dict[str, Any]:
    given = {"registered": outputs.registered, "data": outputs.data, "out": outputs.promoted}
    run(promote, load_params(*overrides), model=MODEL, **given, rollback=rollback)
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
        roll_back("yolov4-p5")


def test_the_champion_is_where_serving_looks(registry: Registry, tmp_path: Path):
    place = tmp_path / "champions" / MODEL
    given = f"promote.champions={place.parent}"

    def served() -> int:
        record = json.loads((place / "champion.json").read_text())
        assert sha256(place / record["weights"]) == record["sha256"]
        return record["version"]

    judge(registry.first, given)
    assert served() == 1
    judge(registry.better, given)
    assert served() == 2
    judge(registry.worse, given)
    assert served() == 2
    judge(registry.better, given, rollback=True)
    assert served() == 1
    assert {path.name for path in place.iterdir()} == {"1", "2", "champion.json"}


def test_a_rollback_that_cannot_be_served_is_repeated(registry: Registry, tmp_path: Path):
    place = tmp_path / "champions"
    judge(registry.first, f"promote.champions={place}")
    judge(registry.better)  # where champions are published is remembered
    assert json.loads((place / MODEL / "champion.json").read_text())["version"] == 2
    shutil.move(place, tmp_path / "aside")
    place.write_text("in the way")
    with pytest.raises(UserError, match=r"promote.champions = .* cannot be written"):
        judge(registry.better, rollback=True)
    assert aliases() == {"champion": 2, "previous_champion": 1}
    place.unlink()
    shutil.move(tmp_path / "aside", place)
    judge(registry.better, rollback=True)
    assert aliases()["champion"] == 1
    assert json.loads((place / MODEL / "champion.json").read_text())["version"] == 1


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
