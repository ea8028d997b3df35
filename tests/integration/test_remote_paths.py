"""Stages whose paths are in a real object store: downloaded, processed, uploaded, kept when the store goes down."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from boto3.session import Session
from faulty_proxy import FaultyProxy
from typer.testing import CliRunner, Result
from waiting import LIMIT_S

from components import parameter_file as parameters
from components.cli.main import app
from components.params import Params
from components.stages import prepare
from components.storage import client as storage_client
from components.storage import folder, stage_paths
from components.storage.client import connect
from components.storage.location import Location
from components.workspace import outbox
from yolo_core.errors import TryAgain, UserError
from yolo_core.progress import silent

ROOT = Path(__file__).parents[2]
SMALL = {
    "prepare.digits.train_images": 12,
    "prepare.digits.val_images": 4,
    "prepare.digits.image_size": 96,
    "train.size": 96,
    "train.epochs": 1,
    "train.batch": 4,
}


@pytest.fixture
def remote(store, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Location:
    """A prefix of the test's own, and a working folder with parameters."""
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    return Location(store.bucket, f"runs/{request.node.name}")


def arguments(*words: object) -> list[str]:
    """Those of a stage, with small settings."""
    changes = [word for key, value in SMALL.items() for word in ("-S", f"{key}={value}")]
    return [*map(str, words), *(changes if words[0] != "sync" else [])]


def command(*words: object, code: int = 0) -> Result:
    """A stage command in the working folder, in this process."""
    done = CliRunner().invoke(app, arguments(*words), prog_name="scaled-yolov4")
    assert done.exit_code == code, done.output
    return done


def process(*words: object, code: int = 0) -> subprocess.CompletedProcess:
    """The same in a separate process."""
    program = [sys.executable, "-m", "components.cli", *arguments(*words)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == code, done.stderr
    return done


def there(remote: Location) -> set[str]:
    return set(folder.listing(connect(), remote))


def test_the_stages_read_from_the_store_and_write_to_it(remote: Location, tmp_path: Path):
    done = command("prepare", "--out", f"{remote}/data")
    assert done.stdout.strip().endswith(f"-> {remote}/data")
    assert {"manifest.json", "annotations/instances_train.json"} <= there(remote / "data")
    command("anchors", "--data", f"{remote}/data", "--out", f"{remote}/anchors")
    model = parameters.load(Path("params.yaml")).models[0]
    fitted = json.loads(
        Session().client("s3").get_object(Bucket=remote.bucket, Key=f"{remote.key}/anchors/{model}.json")["Body"].read()
    )
    command("anchors", "--data", f"{remote}/data", "--out", "local")
    assert json.loads(Path(f"local/{model}.json").read_text()) == fitted
    assert not list(outbox().glob("*/*"))


def run(remote: Location, **changes: Any) -> dict[str, Any]:
    """`prepare` in this process; `stage` may replace it."""
    stage = changes.pop("stage", prepare.run)
    overrides = [f"{key}={value}" for key, value in {**SMALL, **changes}.items()]
    params = parameters.load(Path("params.yaml"), overrides)
    return stage_paths.run("prepare", stage, params, {"out": str(remote)}, silent)


def test_a_result_is_kept_when_the_store_goes_down_and_not_computed_again(
    remote: Location, store, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(storage_client, "ATTEMPTS", 1)
    computed = []
    with FaultyProxy(store.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)

        def stage(*args, **options):
            result = prepare.run(*args, **options)
            computed.append(result)
            proxy.state = "refuse"
            return result

        with pytest.raises(TryAgain, match=r"is kept in .*runs/outbox/results/.*: run `scaled-yolov4 sync`"):
            run(remote, stage=stage)
        proxy.state = "through"
        assert run(remote, stage=stage) == computed[0]
        assert len(computed) == 1
    monkeypatch.setenv("AWS_ENDPOINT_URL", store.endpoint)
    assert "manifest.json" in there(remote)
    assert not list(outbox().glob("results/*"))


def test_sync_sends_what_was_kept(remote: Location, store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(storage_client, "ATTEMPTS", 1)
    with FaultyProxy(store.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)

        def stage(*args, **options):
            proxy.state = "503"
            return prepare.run(*args, **options)

        with pytest.raises(TryAgain):
            run(remote, stage=stage)
    monkeypatch.setenv("AWS_ENDPOINT_URL", store.endpoint)
    assert process("sync").stdout.strip() == f"sync: results -> {remote}"
    assert "manifest.json" in there(remote)
    assert command("sync").stdout == ""


def test_other_parameters_are_computed_although_a_result_is_kept(
    remote: Location, store, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(storage_client, "ATTEMPTS", 1)
    with FaultyProxy(store.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)

        def stage(*args, **options):
            proxy.state = "refuse"
            return prepare.run(*args, **options)

        with pytest.raises(TryAgain):
            run(remote, stage=stage)
        proxy.state = "through"
        assert run(remote, seed=99)["train_images"] == 12
    monkeypatch.setenv("AWS_ENDPOINT_URL", store.endpoint)
    manifest = Session().client("s3").get_object(Bucket=remote.bucket, Key=f"{remote.key}/manifest.json")["Body"].read()
    assert json.loads(manifest)["source"]["seed"] == 99


def test_a_missing_input_is_one_line_before_any_work(remote: Location):
    done = command("anchors", "--data", f"{remote}/nothing", "--out", f"{remote}/anchors", code=2)
    assert done.stderr.strip() == (
        f"error: {remote}/nothing: nothing there; run the stage that makes it, or correct the address"
    )


def test_a_location_that_cannot_be_written_is_reported_before_any_work(
    remote: Location, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")

    def stage(*_: Any, **__: Any) -> dict[str, Any]:
        raise AssertionError("the stage ran")

    with pytest.raises(UserError, match="AWS_SECRET_ACCESS_KEY does not match AWS_ACCESS_KEY_ID"):
        run(remote, stage=stage)


@pytest.mark.parametrize("address", ["s3:/bucket/x", "gs://bucket/x", "s3://b/../x"])
def test_an_address_of_another_kind_is_refused(remote: Location, address: str):
    done = command("prepare", "--out", address, code=2)
    assert done.stderr.startswith(f"error: {address}: ")
    assert len(done.stderr.splitlines()) == 1


def test_unfinished_work_is_kept_in_step_with_the_store(remote: Location, monkeypatch: pytest.MonkeyPatch):
    """What a stage leaves in `work` is in the store while it runs and when it fails; the next one resumes from it."""
    monkeypatch.setattr(stage_paths, "MIRROR_EVERY_S", 0.1)
    params, seen = parameters.load(Path("params.yaml")), []

    def stage(params: Params, *, work: Path, progress: Any) -> dict[str, Any]:
        seen.append(sorted(path.name for path in work.glob("step-*")))
        (work / f"step-{len(seen)}").mkdir(parents=True)
        (work / f"step-{len(seen)}" / "state.json").write_text("{}")
        raise UserError("killed")

    for number in (1, 2):
        with pytest.raises(UserError, match="killed"):
            stage_paths.run("train", stage, params, {"work": f"{remote}/work"}, silent)
        assert there(remote / "work") == {f"step-{each}/state.json" for each in range(1, number + 1)}
        Path("runs").rename(f"lost-{number}")  # another machine
    assert seen == [[], ["step-1"]]


@pytest.mark.slow
def test_a_training_from_the_store_to_the_store(remote: Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    model = parameters.load(Path("params.yaml")).models[0]
    Path("hyp.yaml").write_text("hyp: {}\n")
    connect().put_object(Bucket=remote.bucket, Key=(remote / "hyp.yaml").key, Body=b"hyp: {}\n")
    process("prepare", "--out", f"{remote}/data")
    process("anchors", "--data", f"{remote}/data", "--out", f"{remote}/anchors")
    fitted = f"{remote}/anchors/{model}.json"
    first = ["train", "--data", f"{remote}/data", "--anchors", fitted, "--hyp", f"{remote}/hyp.yaml"]
    process(*first, "--out", f"{remote}/train", "--work", f"{remote}/work")
    assert there(remote / "train") == {"model.safetensors", "curves.csv", "train.json"}
    assert not [path for path in there(remote / "work") if "step-" in path]  # finished work is removed there too
    process(*first, "--out", "tuned", "--start-from", f"{remote}/train/model.safetensors")
    started = json.loads(Path("tuned/train.json").read_text())["started_from"]
    assert started["file"].endswith("train/model.safetensors")
    weights = ["--weights", f"{remote}/train/model.safetensors"]
    process("evaluate", "--data", f"{remote}/data", *weights, "--out", f"{remote}/evaluate")
    assert "metrics.json" in there(remote / "evaluate")
