"""Records of a training that reach MLflow once each and in order, whatever happens to MLflow or to the training."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest
from faulty_proxy import Fault, FaultyProxy
from stage_outputs import MODEL, load_params, make_dataset
from waiting import LIMIT_S

from components.tracking import connection, journal
from components.tracking import journaled_run as tracking_journal
from components.tracking import runs as tracking
from components.tracking.journaled_run import journaled_run
from components.workspace import outbox
from infra.local import services
from yolo_core.errors import TryAgain, UserError
from yolo_core.progress import silent

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "data")


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Callable[[Path], str]) -> str:
    return mlflow_database(tmp_path_factory.mktemp("mlflow"))


@pytest.fixture
def embedded(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    monkeypatch.chdir(tmp_path)


def history(run_id: str, name: str = "loss") -> list[tuple[int, float]]:
    """Every value that MLflow has, in order of recording."""
    found = connection.connect().get_metric_history(run_id, name)
    return [(metric.step, metric.value) for metric in sorted(found, key=lambda each: (each.timestamp, each.step))]


def test_records_arrive_and_nothing_stays_behind(embedded: None, data: Path):
    params = load_params("seed=1")
    with journaled_run(params, data, "train", MODEL) as run:
        run.log_params({"batch": 16})
        for step in range(1, 6):
            run.log({"loss": 1 / step, "undefined": float("nan"), "missing": None}, step)
        run.tag(note="x")
        run.text("words", "note.txt")
    assert run.run_id
    found = connection.connect().get_run(run.run_id)
    assert (found.info.status, found.data.params) == ("FINISHED", {"batch": "16"})
    assert found.data.tags["scaled_yolov4.note"] == "x"
    assert set(found.data.metrics) == {"loss"}
    assert history(run.run_id) == [(step, 1 / step) for step in range(1, 6)]
    assert not journal.journals_in(outbox() / "records")
    with tracking.stage_run(params, data, "train", MODEL) as direct:
        pass
    assert direct.run_id == run.run_id  # the same run either way


KILLED = """
import os, signal, sys
from pathlib import Path
from stage_outputs import MODEL, load_params
from components.tracking.journaled_run import journaled_run
with journaled_run(load_params("seed=2"), Path(sys.argv[1]), "train", MODEL) as run:
    for step in range(1, 8):
        run.log({"loss": 1 / step}, step)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_training_that_resumes_after_a_kill_records_each_step_once(embedded: None, data: Path):
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'tests/support'}"}
    killed = subprocess.run([sys.executable, "-c", KILLED, str(data)], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    with journaled_run(load_params("seed=2"), data, "train", MODEL) as run:
        for step in range(4, 11):  # from its last checkpoint
            run.log({"loss": 1 / step}, step)
    assert run.run_id
    assert history(run.run_id) == [(step, 1 / step) for step in range(1, 11)]


def test_a_training_that_fails_is_recorded_as_failed(embedded: None, data: Path):
    with pytest.raises(ZeroDivisionError), journaled_run(load_params("seed=3"), data, "train", MODEL) as run:
        _ = 1 / 0
    assert run.run_id
    assert connection.connect().get_run(run.run_id).info.status == "FAILED"


def test_without_mlflow_the_work_continues_and_the_records_are_kept(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tracking_journal, "END_TIMEOUT_S", 0.1)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://someone:planted-secret@127.0.0.1:9")
    with journaled_run(load_params(), data, "train", MODEL) as run:
        run.log({"loss": 1.0}, 1)
    assert run.run_id is None
    (path,) = tracking_journal.waiting("train", MODEL)
    with pytest.raises(
        TryAgain, match=rf"did not accept 2 records of train {MODEL}; they are kept in {path}: run `scaled-y"
    ):
        tracking_journal.check_delivered("train", MODEL)
    tracking_journal.check_delivered("train", "another model")
    kept = "".join(file.read_text() for file in path.parent.iterdir())
    assert "planted-secret" not in kept + caplog.text
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:10")
    with pytest.raises(UserError, match=r"recorded for MLflow at http://127\.0\.0\.1:9, not http://127\.0\.0\.1:10"):
        tracking_journal.deliver_all(silent)


# Over a server with accounts, through a proxy

REQUEST_S = 20  # after which a hanging request is abandoned


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[services.Services]:
    with services.running(tmp_path_factory.mktemp("services")) as running:
        yield running


@pytest.fixture
def proxy(server: services.Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    variables = server.variables()
    with FaultyProxy(variables["MLFLOW_TRACKING_URI"]) as proxy:
        for name, value in {**variables, "MLFLOW_TRACKING_URI": proxy.url}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", str(REQUEST_S))
        monkeypatch.setattr(journal, "FIRST_WAIT_S", 0.2)
        monkeypatch.setattr(tracking_journal, "END_TIMEOUT_S", LIMIT_S)
        monkeypatch.chdir(tmp_path)
        yield proxy


def logged(run: tracking_journal.JournaledRun, steps: range, pause_s: float = 0.05) -> float:
    """Log these steps; returns the longest time of one."""
    longest = 0.0
    for step in steps:
        began = time.monotonic()
        run.log({"loss": 1 / step}, step)
        longest = max(longest, time.monotonic() - began)
        time.sleep(pause_s)
    return longest


@contextlib.contextmanager
def requesting(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[int]]:
    """Yields the threads that send requests while the block runs."""
    threads, send = set(), HTTPConnection.putrequest
    with monkeypatch.context() as patch:
        patch.setattr(HTTPConnection, "putrequest", lambda *a, **k: threads.add(threading.get_ident()) or send(*a, **k))
        yield threads


@pytest.mark.slow
@pytest.mark.parametrize("harm", ["refuse", "503", "slow", "cut up", "cut down", "damage up", "damage down", "hang"])
def test_a_failing_server_costs_no_record_and_no_time(
    proxy: FaultyProxy, data: Path, monkeypatch: pytest.MonkeyPatch, harm: str
):
    seed = ["refuse", "503", "slow", "cut up", "cut down", "damage up", "damage down", "hang"].index(harm) + 10
    with journaled_run(load_params(f"seed={seed}"), data, "train", MODEL) as run:
        logged(run, range(1, 11))
        if harm in ("refuse", "503"):
            proxy.state = harm
        elif harm == "slow":
            proxy.delay_s = 0.5
        elif harm == "hang":
            proxy.faults.append(Fault("hang", "down", at=10, times=2))
        else:
            kind, direction = harm.split()
            proxy.faults.append(Fault(kind, direction, at=100, times=3))
        with requesting(monkeypatch) as threads:
            assert logged(run, range(11, 31)) < REQUEST_S  # it does not wait for a request that hangs
        assert threading.get_ident() not in threads
        proxy.state, proxy.delay_s = "through", 0.0
        logged(run, range(31, 41))
    assert not any(fault.times for fault in proxy.faults)
    assert run.run_id
    assert history(run.run_id) == [(step, 1 / step) for step in range(1, 41)]
    assert not tracking_journal.waiting("train", MODEL)


@pytest.mark.slow
def test_a_run_whose_creation_went_unanswered_exists_once(proxy: FaultyProxy, data: Path):
    """The answers are lost, not the requests: MLflow has created what the client believes failed."""
    params = load_params("seed=30")
    proxy.faults.append(Fault("cut", "down", at=0, times=8))
    with journaled_run(params, data, "train", MODEL) as run:
        logged(run, range(1, 5))
    assert not proxy.faults[0].times
    client = connection.connect()
    experiment = connection.experiment_id(client, params.experiment)
    pipeline = tracking.pipeline_id(params, data)
    runs = client.search_runs([experiment], f"tags.`{tracking.PIPELINE_TAG}` = '{pipeline}'")
    assert sorted(found.data.tags[tracking.STAGE_TAG] for found in runs) == ["pipeline", "train"]
    (train,) = (found for found in runs if found.data.tags[tracking.STAGE_TAG] == "train")
    assert history(train.info.run_id) == [(step, 1 / step) for step in range(1, 5)]


@pytest.mark.slow
def test_expired_credentials_are_refused_at_the_start_and_waited_out_later(
    proxy: FaultyProxy, data: Path, monkeypatch: pytest.MonkeyPatch
):
    right = os.environ["MLFLOW_TRACKING_PASSWORD"]
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "not-the-password")
    with pytest.raises(UserError, match="refuses access"), journaled_run(load_params(), data, "train", "denied"):
        pass
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", right)
    with journaled_run(load_params("seed=31"), data, "train", MODEL) as run:
        logged(run, range(1, 4))
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "not-the-password")
        logged(run, range(4, 20))
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", right)
    assert run.run_id
    assert history(run.run_id) == [(step, 1 / step) for step in range(1, 20)]


@pytest.mark.slow
def test_a_stage_ends_with_exit_code_3_and_sync_delivers_later(
    proxy: FaultyProxy, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A real training from the command line; MLflow goes down while it runs and is back afterwards."""
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    small = ["-S", "prepare.digits.train_images=16", "-S", "prepare.digits.val_images=4"]
    small += [
        "-S",
        "prepare.digits.image_size=96",
        "-S",
        "train.size=96",
        "-S",
        "train.epochs=2",
        "-S",
        "train.batch=4",
    ]

    def command(*words: str) -> subprocess.CompletedProcess:
        program = [sys.executable, "-m", "components.cli", *words]
        return subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT_S)

    for words in (["prepare"], ["anchors"]):
        done = command(*words, *small)
        assert done.returncode == 0, done.stderr
    hyp = tmp_path / "hyp.yaml"
    hyp.write_text("hyp: {}\n")
    threading.Timer(0.1, lambda: setattr(proxy, "state", "refuse")).start()
    train = ["train", "--model", MODEL, "--hyp", str(hyp), *small]
    done = command(*train)
    assert done.returncode == 3, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: MLflow at http://127.0.0.1")
    assert "run `scaled-yolov4 sync`" in last
    assert (tmp_path / f"outputs/train/{MODEL}/model.safetensors").exists()
    assert command("sync").returncode == 3  # still down
    assert list((tmp_path / "runs/outbox/records").glob("*.jsonl"))
    proxy.state = "through"
    done = command("sync")
    assert done.returncode == 0, done.stderr
    assert f"records of train-{MODEL}" in done.stdout
    assert not list((tmp_path / "runs/outbox/records").glob("*.jsonl"))
    curves = (tmp_path / f"outputs/train/{MODEL}/curves.csv").read_text().splitlines()[1:]
    client = connection.connect()
    (run,) = client.search_runs(
        [connection.experiment_id(client, load_params().experiment)],
        f"tags.`{tracking.STAGE_TAG}` = 'train'",
        order_by=["attributes.start_time DESC"],
        max_results=1,
    )
    assert run.info.status == "FINISHED"
    epochs = connection.connect().get_metric_history(run.info.run_id, "epoch")
    assert [metric.value for metric in epochs] == [1.0, 2.0]
    assert len(curves) == 2


@pytest.mark.slow
def test_a_server_with_accounts_refuses_a_write_without_one(
    server: services.Services, data: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.variables()["MLFLOW_TRACKING_URI"])
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match=r"refuses access \(401\)"):
        connection.probe()
