"""Every command, with credentials planted in every variable and address that takes them, shows none of them."""

import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from kfp_server import KfpServer
from typer.testing import CliRunner

from components.storage import web
from infra.local import services
from pipelines.cli import stages

ROOT = Path(__file__).parents[2]
PLANTED = "pl4nt3d"
PARAMS = ["--params", str(ROOT / "params.yaml")]
GRAPH = ["--graph", str(ROOT / "pipelines/scaled_yolov4_full.yaml"), *PARAMS]
ELSEWHERE = ["-S", "prepare.source=coco-dir", "-S", f"prepare.location=http://user:{PLANTED}@host/data"]
STAGES = ["anchors", "evolve", "train", "evaluate", "export", "benchmark", "register", "promote", "compare"]
ADDRESS = f"http://user:{PLANTED}@127.0.0.1:9/w.pt?signature={PLANTED}"  # nothing listens there
# The words after each command; HOST stands for Kubeflow's address.
WORDS: dict[str, list[str]] = {
    **dict.fromkeys(STAGES, PARAMS),
    "prepare": [*PARAMS, *ELSEWHERE],
    "retrain": [*PARAMS, "--dry-run"],
    "check-source": [*PARAMS, *ELSEWHERE],
    "init": [str(ROOT / "tests"), "--yes", "--weights", ADDRESS],
    "parameters": [*PARAMS, *ELSEWHERE],
    "predict": [ADDRESS],
    "summary": PARAMS,
    "sync": [],
    "models": [],
    "plan": ["--latency-ms", "15", "--device", "V100"],
    "import-weights": [
        "--model",
        "yolov4-tiny",
        "--from",
        ADDRESS,
        "--out",
        "w.safetensors",
    ],
    "doctor": PARAMS,
    "pipeline compile": ["--out", "graph.yaml"],
    "pipeline submit": [*GRAPH, "--no-follow", "--mlflow-uri", f"http://user:{PLANTED}@mlflow", "--host", "HOST"],
    "pipeline schedule": [*GRAPH, "--cron", "0 0 2 * * *", "--host", "HOST"],
    "pipeline status": ["--host", "HOST"],
    "pipeline cancel": ["no-such-run", "--host", "HOST"],
}

SLOW = ("models", "plan")  # they count all models, and read no variable


def commands(group: Any, before: str = "") -> list[str]:
    """The full names of all commands."""
    found = []
    for name, item in group.commands.items():
        found += commands(item, f"{before}{name} ") if hasattr(item, "commands") else [f"{before}{name}"]
    return found


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working folder and home, and credentials in each variable; nothing listens at the addresses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://user:{PLANTED}@127.0.0.1:{free.getsockname()[1]}"
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, f"{PLANTED}-{name}")
    for name in ("AWS_ENDPOINT_URL", "COCO_BASE_URL", "MLFLOW_TRACKING_URI"):
        monkeypatch.setenv(name, nobody)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("KFP_EXISTING_TOKEN", f"{PLANTED}-token")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(web, "ATTEMPTS", 1)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def test_no_command_is_forgotten():
    assert sorted(commands(typer.main.get_command(stages))) == sorted(WORDS)


@pytest.mark.usefixtures("planted")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in WORDS]
)
def test_a_command_shows_no_credential(name: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]):
    with KfpServer() as server:
        host = server.url.replace("://", f"://user:{PLANTED}@")
        words = [host if word == "HOST" else word for word in WORDS[name]]
        result = CliRunner().invoke(stages, [*name.split(), *words])
    assert result.exit_code in (0, 2, 3), result.output
    shown = result.output + caplog.text + "".join(capfd.readouterr())
    assert PLANTED not in shown


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        (f"http://me:{PLANTED}@host:5000/mlflow", "http://host:5000/mlflow"),
        (f"http://me:{PLANTED}/@{PLANTED}@host", "http://host"),
        (f"postgresql+psycopg://me:{PLANTED}@host/db", "postgresql+psycopg://host/db"),
        (f"postgresql://host/db?user=me&password={PLANTED}&sslmode=require", "postgresql://host/db?sslmode=require"),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
    ],
)
def test_summary_shows_the_address_alone(uri: str, shown: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("COLUMNS", "160")
    result = CliRunner().invoke(stages, ["summary", *PARAMS])
    assert f" {shown} " in result.output
    assert PLANTED not in result.output


@pytest.mark.usefixtures("planted")
@pytest.mark.parametrize("word", ["up", "status", "down"])
def test_the_local_services_show_no_credential(
    word: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    """Without starting them: what they print does not depend on it."""
    monkeypatch.setattr(services.Services, "_start", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["services", word, "--database", "sqlite", "--folder", "here"])
    made = services.Services(Path("here").absolute(), sqlite=True)
    made.up()
    secret = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD")
    values = [made.variables()[name] for name in secret]
    services.main()
    shown = "".join(capfd.readouterr())
    assert [value for value in values if value in shown] == []
    assert all(value in Path("here/env").read_text() for value in values)
