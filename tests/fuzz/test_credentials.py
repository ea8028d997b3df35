"""Credentials planted wherever they are accepted: no output, log, record or file of a run shows them."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from stage_outputs import MODEL, load_params
from waiting import LIMIT_S

from components.tracking import connection
from yolo_core.errors import UserError

ROOT = Path(__file__).parents[2]
PLANTED = "pl4nt3d"
TINY = [
    "train.size=64", "train.batch=4", "train.nominal_batch=4", "train.epochs=1", "train.width=0.1", "train.cache=none",
    "prepare.digits.train_images=8", "prepare.digits.val_images=4", "prepare.digits.image_size=64",
    "anchors.generations=5", f"models=[{MODEL}]",
]  # fmt: skip


@pytest.fixture(scope="module")
def nobody() -> str:
    """An address on which nothing listens, with credentials in it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://user:{PLANTED}@127.0.0.1:{free.getsockname()[1]}"


def variables(nobody: str, tracking_uri: str) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": f"{PLANTED}-id",
        "AWS_SECRET_ACCESS_KEY": f"{PLANTED}-secret",
        "AWS_SESSION_TOKEN": f"{PLANTED}-token",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": nobody,
        "COCO_BASE_URL": nobody,
        "MLFLOW_TRACKING_USERNAME": "user",
        "MLFLOW_TRACKING_PASSWORD": f"{PLANTED}-password",
        "MLFLOW_TRACKING_URI": tracking_uri,
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    }


def command(folder: Path, given: dict[str, str], *words: str, codes: tuple[int, ...] = (0,)) -> None:
    """A command with these variables, in `folder`, ends with one of the codes and prints nothing that was planted."""
    sets = [part for each in TINY for part in ("-S", each)]
    options = [] if words[0] == "sync" else ["--params", str(ROOT / "params.yaml"), *sets]
    done = subprocess.run(
        [sys.executable, "-m", "components.cli", *words, *options],
        cwd=folder,
        env={**os.environ, **given, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    shown = done.stdout + done.stderr
    assert PLANTED not in shown, shown
    assert "Traceback" not in shown, shown
    assert done.returncode in codes, shown


def files_with_it(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and PLANTED.encode() in path.read_bytes()]


def test_messages_omit_the_credentials_of_an_address():
    text = f"s3+http://user:{PLANTED}@1@host:1/path and mysql://{PLANTED}@host cannot be reached; a@b is no address"
    assert str(UserError(text)) == "s3+http://host:1/path and mysql://host cannot be reached; a@b is no address"


@pytest.mark.parametrize("source", ["s3", "coco2017"])
def test_an_unavailable_source(source: str, nobody: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from components.stages import prepare
    from components.storage import client, web

    monkeypatch.setattr(client, "ATTEMPTS", 1)
    monkeypatch.setattr(web, "ATTEMPTS", 1)
    for name, value in variables(nobody, "").items():
        monkeypatch.setenv(name, value)
    location = {"s3": ["prepare.location=s3://bucket/data"], "coco2017": []}[source]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        prepare.run(load_params(f"prepare.source={source}", *location), out=tmp_path / "out", work=tmp_path / "work")
    assert PLANTED not in str(caught.value)
    assert "127.0.0.1" in str(caught.value)
    assert not files_with_it(tmp_path)


@pytest.mark.slow
def test_a_training_with_mlflow_down_and_with_mlflow_up(nobody: str, tmp_path: Path):
    unreachable, here = variables(nobody, nobody), variables(nobody, f"sqlite:///{tmp_path}/mlflow.db")
    command(tmp_path, unreachable, "prepare", "--out", "data")
    command(tmp_path, unreachable, "anchors", "--data", "data", "--out", "anchors")
    given = ["--data", "data", "--anchors", f"anchors/{MODEL}.json", "--hyp", "hyp.yaml"]
    (tmp_path / "hyp.yaml").write_text("hyp: {}")
    command(tmp_path, unreachable, "train", *given, "--model", MODEL, "--out", "out", codes=(3,))
    assert (tmp_path / "out/model.safetensors").exists()
    assert not files_with_it(tmp_path)  # the journal of records included
    again = tmp_path / "again"  # with its own outbox
    again.mkdir()
    given = [word if word.startswith("--") else f"../{word}" for word in given]
    command(again, here, "train", *given, "--model", MODEL, "--out", "out", codes=(0, 3))  # 3: the database is slow
    command(again, here, "sync")
    assert (tmp_path / "mlflow.db").exists()
    assert not files_with_it(tmp_path)  # MLflow's database: parameters, tags and figures


def test_an_unavailable_mlflow(nobody: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    for name, value in variables(nobody, nobody).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError) as caught:
        connection.probe()
    assert PLANTED not in str(caught.value) + caplog.text
    assert "127.0.0.1" in str(caught.value)
