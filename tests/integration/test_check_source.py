"""`check-source` against a real registry: what is known to be unchanged before it is prepared."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from coco_source import CocoFolder
from stage_outputs import MODEL, load_params, make_outputs

from components.lineage.record import SOURCE_VARIABLE
from components.stages import check_source, prepare, promote, register, retrain
from components.tracking import connection


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlflow_database: Callable[[Path], str]) -> CocoFolder:
    """A source, and a champion of a run that checked it first."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_database(tmp_path))
    source = CocoFolder(tmp_path / "source")
    source.save()
    monkeypatch.setenv(SOURCE_VARIABLE, checked()["fingerprint"])
    params = given()
    prepare.run(params, out=Path("data/prepared"))
    outputs = make_outputs(tmp_path / "champion", Path("data/prepared"), classes=["dog", "cat"], right=2)
    register.run(params, model=MODEL, **outputs.paths)
    promote.run(params, model=MODEL, registered=outputs.registered, data=outputs.data, out=outputs.promoted)
    return source


def given(*overrides: str) -> Any:
    return load_params("prepare.source=coco-dir", f"prepare.location={Path('source').absolute()}", *overrides)


def checked(*overrides: str, force: bool = False) -> dict[str, Any]:
    check_source.run(given(*overrides), out=Path("found.json"), force=force)
    return json.loads(Path("found.json").read_text())


def test_the_same_source_is_unchanged_and_that_is_recorded(source: CocoFolder) -> None:
    record = checked()
    assert record["unchanged"] == {MODEL: "version 1, the champion, has the same data, parameters, code, image"}
    assert record["nothing_to_do"]
    client = connection.connect()
    experiment = client.get_experiment_by_name("scaled-yolov4")
    assert experiment
    (run,) = client.search_runs([experiment.experiment_id], "tags.`scaled_yolov4.stage` = 'retrain'")
    assert run.data.tags["scaled_yolov4.action"] == "unchanged"


def test_anything_else_is_prepared(source: CocoFolder) -> None:
    for record in (
        checked("train.epochs=31"),
        checked("prepare.max_bad_fraction=0.5"),
        checked("prepare.val_fraction=0.2"),
        checked("prepare.val_fraction=0.2", "prepare.group_pattern='(v)'"),
        checked(force=True),
    ):
        assert not record["unchanged"]
        assert not record["nothing_to_do"]
    before = checked()["fingerprint"]
    source.add_image("9.jpg", b"no image at all")
    source.save()
    record = checked()
    assert record["fingerprint"] != before
    assert not record["nothing_to_do"]


def test_equal_content_under_another_fingerprint_is_known_the_next_time(
    source: CocoFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.utime("source/annotations/instances_train.json", ns=(0, 0))
    record = checked()
    assert not record["nothing_to_do"]
    monkeypatch.setenv(SOURCE_VARIABLE, record["fingerprint"])
    assert retrain.run(given())[MODEL].startswith("unchanged")
    assert checked()["nothing_to_do"]
