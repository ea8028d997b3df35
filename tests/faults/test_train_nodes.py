"""Training on a Ray cluster of several nodes: data in the store; processes and nodes lost, nodes that join."""

import hashlib
import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import small_training
from faulty_proxy import FaultyProxy
from range_server import RangeServer
from ray_nodes import Nodes, checkpoint, driver, finish, train, until
from waiting import LIMIT_S

from components.storage import folder
from components.storage.client import connect
from components.storage.location import Location
from yolo_core.models import build_model
from yolo_core.models.weights import save_detector

pytestmark = pytest.mark.slow

TOGETHER = "train.sync_bn=true", "train.amp=false"
# Each at a different step.
VICTIMS = [
    "driver",
    "preempted driver",
    "worker",
    "preempted worker",
    "stopped worker",
    "node",
    "driver",
    "worker",
    "node",
]
TWO = (*TOGETHER, "train.workers=2", "train.stall_minutes=0.5")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_training.prepared(tmp_path_factory.mktemp("train"))


@pytest.fixture(scope="module")
def nodes(running_store, project: Path) -> Iterator[Nodes]:
    with pytest.MonkeyPatch.context() as patch, FaultyProxy(running_store.endpoint) as proxy:
        for name, value in running_store.variables.items():
            patch.setenv(name, value)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project / 'mlflow.db'}")
        patch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "40")
        patch.setenv("PYTHONPATH", str(small_training.ROOT))
        started = Nodes(project, proxy)
        patch.setenv("RAY_ADDRESS", started.cluster.address)
        yield started
        started.cluster.shutdown()


def curves(folder: Path) -> list[list[float]]:
    """Per epoch: the three losses and their sum."""
    lines = (folder / "curves.csv").read_text().splitlines()[1:]
    return [[float(value) for value in line.split(",")[3:7]] for line in lines]


@pytest.fixture(scope="module")
def whole(nodes: Nodes, project: Path) -> Path:
    """The results of two undisturbed nodes."""
    nodes.complete()
    train(project, "whole", *TWO)
    return project / "whole"


def test_two_nodes_train_from_the_store_to_the_store(nodes: Nodes, whole: Path, project: Path, store) -> None:
    there = Location(store.bucket, "two-nodes")
    folder.push(project / "data", there / "data")
    train(project, "remote", *TWO, data=there / "data", out=there / "out", work=there / "work")
    for _, files in nodes.living:  # each node fetched the data itself
        assert list(files.glob("runs/store/*/two-nodes/data/manifest.json"))
    assert {"model.safetensors", "curves.csv", "train.json"} == set(folder.listing(connect(), there / "out"))
    folder.pull(there / "out", project / "remote")
    record = json.loads((project / "remote" / "train.json").read_text())
    assert (record["workers"], record["steps"]) == (2, small_training.STEPS)
    assert record["mlflow_run_id"]
    assert (project / "remote" / "curves.csv").read_bytes() == (whole / "curves.csv").read_bytes()


def test_each_node_fetches_the_weights_to_start_from(nodes: Nodes, project: Path) -> None:
    start = project / "start.safetensors"
    digits = [str(digit) for digit in range(10)]
    save_detector(start, build_model(small_training.MODEL, 10, width=0.25), classes=digits, size=small_training.SIZE)
    digest = hashlib.sha256(start.read_bytes()).hexdigest()
    nodes.complete()
    with RangeServer({"/w.safetensors": start.read_bytes()}) as server:
        weights = f"{server.url}/w.safetensors"  # the driver tells the nodes which content it has
        train(project, "from-the-web", *TOGETHER, "train.workers=2", "train.epochs=1", f"train.weights={weights}")
    assert len(server.requests) == 1 + len(nodes.living)
    for _, files in nodes.living:
        assert (files / "runs/weights" / digest / "w.safetensors").read_bytes() == start.read_bytes()


def test_two_nodes_agree_with_one(whole: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS")
    train(project, "alone", *TOGETHER)
    assert curves(whole)[0] == pytest.approx(curves(project / "alone")[0], rel=0.003)  # float32: rounding grows


@pytest.mark.parametrize(("number", "victim"), enumerate(VICTIMS))
def test_a_kill_at_any_step_does_not_change_the_bits(
    nodes: Nodes, whole: Path, project: Path, number: int, victim: str
) -> None:
    name, target = f"killed-{number}", random_step()
    nodes.complete()
    with driver(project, name, *TWO) as process:
        until(lambda: checkpoint(project, name)["step"] >= target, process, project, name)
        worker, files = random.choice(list(nodes.workers().items()))
        sent = time.time()
        if victim == "driver":
            process.send_signal(signal.SIGKILL)
            finish(process, project, name, -signal.SIGKILL)
        elif victim == "preempted driver":
            process.send_signal(signal.SIGTERM)
            finish(process, project, name, 3)
            sums = project.glob(f"{name}-work/train/*/*/checkpoints/step-*/SHA256SUMS")
            assert sent <= max(path.stat().st_mtime for path in sums) <= time.time()
        elif victim == "stopped worker":  # the other one keeps waiting for it
            os.kill(worker, signal.SIGSTOP)
            finish(process, project, name)
            assert "Timeout (0:00:30)!" in (project / f"{name}.log").read_text()
        elif victim in ("worker", "preempted worker"):
            os.kill(worker, signal.SIGKILL if victim == "worker" else signal.SIGTERM)
            finish(process, project, name)
        else:
            nodes.kill(files)
            nodes.complete()
            finish(process, project, name)
    if "driver" in victim:
        train(project, name, *TWO)
    assert_same_bits(whole, project / name, victim, target)


def test_another_cluster_resumes_after_the_loss_of_the_head(
    nodes: Nodes, whole: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, target = "killed-head", random_step()
    (project / "other").mkdir()
    lost = Nodes(project / "other", nodes.proxy)
    try:
        lost.complete()
        with monkeypatch.context() as patch:
            patch.setenv("RAY_ADDRESS", lost.cluster.address)
            with driver(project, name, *TWO) as process:
                until(lambda: checkpoint(project, name)["step"] >= target, process, project, name)
                lost.cluster.remove_node(lost.cluster.head_node, allow_graceful=False)
                assert process.wait(LIMIT_S) != 0
    finally:
        lost.cluster.shutdown()
    nodes.complete()
    train(project, name, *TWO)
    assert_same_bits(whole, project / name, "head", target)


def random_step() -> int:
    return random.randrange(2, small_training.STEPS - 6)


def assert_same_bits(whole: Path, found: Path, victim: str, target: int) -> None:
    assert json.loads((found / "train.json").read_text())["resumed_at_step"] > 0
    for file in ("model.safetensors", "curves.csv"):
        same = (found / file).read_bytes() == (whole / file).read_bytes()
        assert same, f"{file} differs after the kill of a {victim} at step {target} or little later"


def test_training_continues_with_fewer_nodes_and_grows_again(nodes: Nodes, project: Path) -> None:
    name, changes = "elastic", (*TOGETHER, "train.workers={min: 1, max: 2}", "train.epochs=2000")
    nodes.complete()

    def resumed_with(workers: int, after: int) -> Callable[[], int]:
        """Wait for a later checkpoint by that many workers; returns its step."""

        def look() -> int:
            state = checkpoint(project, name)
            return state["step"] * (len(state["random"]) == workers and state["step"] > after)

        return look

    with driver(project, name, *changes) as process:
        step = until(resumed_with(2, 0), process, project, name)
        nodes.kill(next(iter(nodes.workers().values())))
        step = until(resumed_with(1, step), process, project, name)
        nodes.add()
        step = until(resumed_with(2, step), process, project, name)
        process.send_signal(signal.SIGTERM)
        finish(process, project, name, 3)
    state = checkpoint(project, name)
    assert state["step"] >= step
    assert state["images"] == 4 * state["step"]  # the same global batch throughout
    assert [row["step"] for row in state["rows"]] == [4 * (i + 1) for i in range(len(state["rows"]))]


def test_a_store_that_a_node_cannot_reach_is_exit_code_3(nodes: Nodes, project: Path, store) -> None:
    there = Location(store.bucket, "unreachable")
    folder.push(project / "data", there / "data")
    nodes.complete()
    nodes.proxy.state = "503"
    try:
        train(project, "unreachable", *TWO, code=3, data=there / "data")
    finally:
        nodes.proxy.state = "through"
    errors = [line for line in (project / "unreachable.log").read_text().splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert str(there / "data") in errors[0]
