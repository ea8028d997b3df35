"""`retrain` against a real registry: what a change of the data leads to, and what is recorded."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from coco_source import CocoFolder, encoded, pixels
from stage_outputs import MODEL, load_params, make_outputs

from components.lineage.record import IMAGE_VARIABLE
from components.stages import prepare, promote, register, retrain
from components.tracking import connection
from yolo_core.errors import UserError

CLASSES = ["dog", "cat"]  # by ascending category id


BATCH = "evaluate.batch=2"


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlflow_database: Callable[[Path], str]) -> CocoFolder:
    """A source, prepared in the working folder, and a champion that was trained on it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_database(tmp_path))
    source = CocoFolder(tmp_path / "source")
    prepared(source)
    outputs = make_outputs(tmp_path / "champion", Path("data/prepared"), classes=CLASSES, right=2)
    register.run(load_params(BATCH), model=MODEL, **outputs.paths)
    promote.run(load_params(BATCH), model=MODEL, registered=outputs.registered, data=outputs.data, out=outputs.promoted)
    return source


def prepared(source: CocoFolder) -> None:
    params = load_params("prepare.source=coco-dir", f"prepare.location={source.save()}")
    prepare.run(params, out=Path("data/prepared"))


def decision(*overrides: str, dry_run: bool = True) -> dict[str, Any]:
    retrain.run(load_params(BATCH, *overrides), dry_run=dry_run)
    return json.loads(Path(f"outputs/retrain/{MODEL}/decision.json").read_text())


def test_nothing_new_stays_unchanged_and_is_recorded(source: CocoFolder):
    record = decision(dry_run=False)
    assert (record["action"], record["champion"], record["cost"]) == ("unchanged", 1, None)
    client = connection.connect()
    experiment = client.get_experiment_by_name("scaled-yolov4")
    assert experiment
    (run,) = client.search_runs([experiment.experiment_id], "tags.`scaled_yolov4.stage` = 'retrain'")
    assert run.data.tags["scaled_yolov4.action"] == "unchanged"
    assert run.data.metrics["retrain/fraction"] == 0
    assert record["weights"] is None
    assert not list(Path(f"outputs/retrain/{MODEL}").glob("*.safetensors"))  # nobody needs a copy of them


def test_one_image_more_is_evaluated_or_tuned_as_the_thresholds_say(source: CocoFolder):
    source.add_image("9.jpg", encoded(pixels(seed=9)), (10, 10, 20, 20))
    prepared(source)
    few = decision("retrain.fine_tune_from=0.5", "retrain.min_recall=0", dry_run=False)
    assert few["action"] == "evaluate"
    assert few["diff"]["added"] == 1
    figures = json.loads(Path(f"outputs/retrain/{MODEL}/evaluate/metrics.json").read_text())
    assert (figures["images"], figures["size"]) == (2, 64)

    tuned = decision("retrain.fine_tune_from=0.1", "retrain.min_recall=0")
    assert tuned["action"] == "fine-tune"
    # 30 epochs of the test's parameters x 0.3 = 9, of 5 images, at the champion's 2 images a second
    assert tuned["cost"]["images"] == 45
    assert tuned["cost"]["hours"] == pytest.approx(45 / 2 / 3600)
    weights = f"outputs/retrain/{MODEL}/champion-1.safetensors"
    prefix = f"train.per_model.{MODEL}"
    assert tuned["overrides"] == [f"{prefix}.weights={weights}", f"{prefix}.epochs=9", f"{prefix}.second_stage=null"]
    assert Path(weights).exists()
    page = Path(f"outputs/retrain/{MODEL}/decision.md").read_text()
    assert page.startswith(f"# {MODEL}: fine-tune\n")
    assert "| fraction | 0.1429 |" in page


def test_other_parameters_or_another_image_train_from_scratch(source: CocoFolder, monkeypatch: pytest.MonkeyPatch):
    other = decision("train.epochs=31")
    assert (other["action"], other["reason"]) == ("scratch", "parameters changed since the champion")
    assert "changed besides the data: parameters" in Path(f"outputs/retrain/{MODEL}/decision.md").read_text()
    assert decision("promote.confidence=0.9")["action"] == "unchanged"  # it does not affect weights
    assert decision("evaluate.conf=0.01")["others"] == ["parameters"]  # it affects which epoch is the best
    monkeypatch.setenv(IMAGE_VARIABLE, "registry/name:2")
    assert decision("train.epochs=31")["others"] == ["parameters", "image"]


def test_what_was_judged_already_is_not_trained_again(source: CocoFolder, tmp_path: Path):
    worse = make_outputs(tmp_path / "challenger", Path("data/prepared"), classes=CLASSES, right=1, seed=1)
    params = load_params(BATCH, "train.epochs=31")
    register.run(params, model=MODEL, **worse.paths)
    promote.run(params, model=MODEL, registered=worse.registered, data=worse.data, out=worse.promoted)
    record = decision("train.epochs=31")
    assert (record["action"], record["champion"]) == ("unchanged", 1)
    assert record["reason"].startswith("version 2, the challenger, has the same data, parameters, code")
    assert decision()["reason"].startswith("version 1, the champion")
    assert decision("train.epochs=32")["action"] == "scratch"


def test_force_trains_whatever_changed(source: CocoFolder):
    retrain.run(load_params(), dry_run=True, force=True)
    record = json.loads(Path(f"outputs/retrain/{MODEL}/decision.json").read_text())
    assert (record["action"], record["reason"]) == ("scratch", "requested with --force")
    assert record["diff"]["fraction"] == 0  # the comparison is recorded as well


def test_without_a_champion_it_starts_from_scratch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlflow_database: Callable[[Path], str]
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_database(tmp_path))
    prepared(CocoFolder(tmp_path / "source"))
    record = decision()
    assert (record["action"], record["reason"]) == ("scratch", "there is no champion yet")
    assert record["cost"]["images"] == 30 * 4


def test_a_champion_that_cannot_be_read_is_one_line_unless_forced(source: CocoFolder):
    client = connection.connect()
    name = f"scaled-yolov4-{MODEL}"
    client.delete_registered_model_alias(name, "champion")
    with pytest.raises(UserError, match="no version has the alias `champion`, which version 1 had before"):
        decision()
    client.set_registered_model_alias(name, "champion", "1")
    run = str(client.get_model_version(name, "1").run_id)
    client.delete_run(run)
    client._tracking_client.store._hard_delete_run(run)  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(UserError, match=r"version 1 has no run .*; move the alias `champion`"):
        decision()
    retrain.run(load_params(BATCH), dry_run=True, force=True)
    record = json.loads(Path(f"outputs/retrain/{MODEL}/decision.json").read_text())
    assert (record["action"], record["champion"]) == ("scratch", None)
