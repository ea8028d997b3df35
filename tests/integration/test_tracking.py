"""The run tree in a real MLflow store: found again, shared, closed properly."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from stage_outputs import MODEL, load_params, make_dataset, make_outputs
from waiting import LIMIT_S, until_healthy

from components.promotion.aliases import roll_back
from components.stages import promote, register
from components.tracking import connection
from components.tracking import runs as tracking
from yolo_core.errors import TryAgain, UserError


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A dataset, and the default store: the working folder's mlflow.db."""
    folder = tmp_path_factory.mktemp("tracking")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.chdir(folder)
        yield make_dataset(folder / "data")


def test_a_stage_run_again_continues_the_same_run(data: Path):
    params = load_params()
    with tracking.stage_run(params, data, "train", MODEL) as first:
        first.log({"loss": 3.0, "missing": None, "undefined": float("nan")}, 1)
        first.log_params({"batch": 16})
    with tracking.stage_run(params, data, "train", MODEL) as second:
        second.log({"loss": 2.0}, 2)
        second.log_params({"batch": 32, "size": 224})
    assert second.run_id == first.run_id
    assert second.root.run_id == first.root.run_id == tracking.pipeline_run(params, data)
    run = connection.connect().get_run(first.run_id)
    assert run.data.metrics == {"loss": 2.0}
    assert run.data.params == {"batch": "16", "size": "224"}  # the first value of a parameter is kept
    assert run.info.status == "FINISHED"
    assert Path("mlflow.db").exists()
    assert str(run.info.artifact_uri).startswith(Path("mlartifacts").absolute().as_uri())


def test_a_failing_stage_is_recorded_as_failed(data: Path):
    params = load_params("seed=1")
    with pytest.raises(ZeroDivisionError), tracking.stage_run(params, data, "train", MODEL) as run:
        _ = 1 / 0
    client = connection.connect()
    assert client.get_run(run.run_id).info.status == "FAILED"
    assert client.get_run(run.root.run_id).info.status == "FAILED"


def test_stages_that_start_together_share_one_root(data: Path):
    params, together = load_params("seed=2"), threading.Barrier(4)

    def stage(number: int) -> str:
        together.wait(LIMIT_S)
        with tracking.stage_run(params, data, "train", f"model-{number}") as run:
            run.log({"loss": 1.0}, 1)
        return run.root.run_id

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(stage, range(4)))) == 1


def test_other_parameters_are_another_pipeline_unless_it_has_a_name(data: Path, monkeypatch: pytest.MonkeyPatch):
    one, other = load_params("seed=3"), load_params("seed=4")
    assert tracking.pipeline_id(one, data) == tracking.pipeline_id(one, data)
    assert tracking.pipeline_id(one, data) != tracking.pipeline_id(other, data)
    monkeypatch.setenv("SCALED_YOLOV4_PIPELINE_ID", "run-17")
    assert tracking.pipeline_id(one, data) == tracking.pipeline_id(other, data) == "run-17"
    monkeypatch.setenv("SCALED_YOLOV4_PIPELINE_ID", "it's")
    with pytest.raises(UserError, match="SCALED_YOLOV4_PIPELINE_ID"):
        tracking.pipeline_id(one, data)


def test_the_store_can_be_probed(data: Path):
    assert connection.probe() == f"sqlite:///{Path('mlflow.db').absolute()}"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen]:
    """A tracking server of its own, named by MLFLOW_TRACKING_URI."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    command = f"server --backend-store-uri sqlite:///{tmp_path}/server.db --artifacts-destination {tmp_path}/store "
    command += f"--host 127.0.0.1 --port {port} --workers 1"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    variables = {**os.environ, "PATH": path, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (tmp_path / "log").open("w") as log:
        running = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *command.split()],
            env=variables,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    try:
        until_healthy(f"{uri}/health", running, tmp_path / "log")
        yield running
    finally:
        stop(running)


def stop(server: subprocess.Popen) -> None:
    if server.poll() is None:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait(LIMIT_S)


@pytest.mark.slow
def test_over_a_server_and_without_it(server: subprocess.Popen, tmp_path: Path, data: Path):
    """Register and promote work with a server as with a file; without it they end with one line that says try again."""
    params = load_params()
    for number, right in enumerate((6, 12), 1):
        outputs = make_outputs(tmp_path / str(number), data, right=right, seed=number)
        for _ in range(2):
            register.run(params, model=MODEL, **outputs.paths)
            judged = promote.run(params, model=MODEL, registered=outputs.registered, data=data, out=outputs.promoted)
            assert (judged["decision"], judged["champion_after"]) == ("promote", number)
    assert roll_back(MODEL, f"scaled-yolov4-{MODEL}").champion_after == 1

    stop(server)
    with pytest.raises(TryAgain, match="cannot be reached"), tracking.stage_run(params, data, "x", "lost"):
        pass
    with pytest.raises(TryAgain, match="cannot be reached"):
        connection.probe()
