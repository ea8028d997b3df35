"""Training on a Ray cluster of several nodes: data in the store; processes and nodes that are lost, nodes that join."""

import contextlib
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import small_training
from faulty_proxy import FaultyProxy
from small_training import MODEL, command

from components import ray_home
from components.storage import folder
from components.storage.client import connect
from components.storage.location import Location

pytestmark = pytest.mark.slow

LIMIT_S = 240.0
TOGETHER = "train.sync_bn=true", "train.amp=false"
TWO = (*TOGETHER, "train.workers=2", "train.stall_minutes=0.5")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_training.prepared(tmp_path_factory.mktemp("train"))


class Nodes:
    """A cluster whose head only drives. Its other nodes have one processor, and files and a way to the store each."""

    def __init__(self, folder: Path, proxy: FaultyProxy) -> None:
        from ray.cluster_utils import Cluster

        self.folder, self.proxy = folder, proxy
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self.started: list[tuple[Any, Path]] = []

    def add(self) -> Path:
        """Start a node; returns the folder of its files."""
        files = self.folder / f"node{len(self.started) + 1}"
        variables = {ray_home.NODE_VARIABLE: str(files), "AWS_ENDPOINT_URL": self.proxy.url}
        self.started.append((self.cluster.add_node(num_cpus=1, env_vars=variables), files))
        return files

    @property
    def living(self) -> list[tuple[Any, Path]]:
        return [(node, files) for node, files in self.started if node in self.cluster.worker_nodes]

    def complete(self, count: int = 2) -> None:
        """As many nodes as that."""
        while len(self.living) < count:
            self.add()

    def kill(self, files: Path) -> None:
        """SIGKILL of the raylet of a node, with which the node is lost."""
        node = next(node for node, at in self.living if at == files)
        self.cluster.remove_node(node, allow_graceful=False)

    def workers(self) -> dict[int, Path]:
        """The training processes by their id, each with the folder of its node."""
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if b"RayTrainWorker" not in (entry / "cmdline").read_bytes():
                    continue
                variables = (entry / "environ").read_bytes().decode(errors="replace")
                for _, files in self.living:
                    if f"{ray_home.NODE_VARIABLE}={files}\0" in variables:
                        found[int(entry.name)] = files
        return found


@pytest.fixture(scope="module")
def nodes(running_store, place: Path) -> Iterator[Nodes]:
    with pytest.MonkeyPatch.context() as patch, FaultyProxy(running_store.endpoint) as proxy:
        for name, value in running_store.variables.items():
            patch.setenv(name, value)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{place / 'mlflow.db'}")
        patch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "40")
        patch.setenv("PYTHONPATH", str(small_training.ROOT))
        started = Nodes(place, proxy)
        patch.setenv("RAY_ADDRESS", started.cluster.address)
        yield started
        started.cluster.shutdown()


@contextlib.contextmanager
def driver(place: Path, name: str, *changes: str, **options: object) -> Iterator[subprocess.Popen]:
    """The stage as a process, which does not outlive the block."""
    home = place / f"{name}-cwd"
    home.mkdir(exist_ok=True)
    words = command(place, name, *changes, **options)
    with (place / f"{name}.log").open("a") as log, subprocess.Popen(words, cwd=home, stdout=log, stderr=log) as process:
        try:
            yield process
        finally:
            process.kill()


def finish(process: subprocess.Popen, place: Path, name: str, code: int = 0) -> None:
    ended = process.wait(LIMIT_S)
    assert ended == code, (place / f"{name}.log").read_text()[-5000:]


def train(place: Path, name: str, *changes: str, code: int = 0, **options: object) -> None:
    """The stage, from its start to its end."""
    with driver(place, name, *changes, **options) as process:
        finish(process, place, name, code)


def until(true: Callable[[], Any], process: subprocess.Popen, place: Path, name: str) -> Any:
    """What `true` gives, once it is something."""
    deadline = time.monotonic() + LIMIT_S
    while not (value := true()):
        assert process.poll() is None, "it ended early:\n" + (place / f"{name}.log").read_text()[-5000:]
        assert time.monotonic() < deadline, "nothing in time:\n" + (place / f"{name}.log").read_text()[-5000:]
        time.sleep(0.02)
    return value


def checkpoint(place: Path, name: str) -> dict[str, Any]:
    """The state in the newest checkpoint; step 0 before the first."""
    found = sorted((place / f"{name}-work" / "train" / MODEL).glob("*/checkpoints/step-*/state.json"))
    with contextlib.suppress(OSError):  # it may be replaced meanwhile
        if found:
            return json.loads(found[-1].read_text())
    return {"step": 0, "random": [], "images": 0}


def curves(folder: Path) -> list[list[float]]:
    """Per epoch: the three losses and their sum."""
    lines = (folder / "curves.csv").read_text().splitlines()[1:]
    return [[float(value) for value in line.split(",")[3:7]] for line in lines]


@pytest.fixture(scope="module")
def whole(nodes: Nodes, place: Path) -> Path:
    """The results of two nodes that nothing disturbed."""
    nodes.complete()
    train(place, "whole", *TWO)
    return place / "whole"


def test_two_nodes_train_from_the_store_to_the_store(nodes: Nodes, whole: Path, place: Path, store) -> None:
    there = Location(store.bucket, "two-nodes")
    folder.push(place / "data", there / "data")
    train(place, "remote", *TWO, data=there / "data", out=there / "out", work=there / "work")
    for _, files in nodes.living:  # each node fetched the data itself
        assert list(files.glob("runs/store/*/two-nodes/data/manifest.json"))
    assert {"model.safetensors", "curves.csv", "train.json"} == set(folder.listing(connect(), there / "out"))
    folder.pull(there / "out", place / "remote")
    record = json.loads((place / "remote" / "train.json").read_text())
    assert (record["workers"], record["steps"]) == (2, small_training.STEPS)
    assert record["mlflow_run_id"]
    assert (place / "remote" / "curves.csv").read_bytes() == (whole / "curves.csv").read_bytes()


def test_two_nodes_agree_with_one(whole: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS")
    train(place, "alone", *TOGETHER)
    assert curves(whole)[0] == pytest.approx(curves(place / "alone")[0], rel=0.003)  # float32: rounding grows


@pytest.mark.parametrize(
    "victim", ["driver", "preempted driver", "worker", "preempted worker", "stopped worker", "node"]
)
def test_a_kill_at_any_step_does_not_change_the_bits(nodes: Nodes, whole: Path, place: Path, victim: str) -> None:
    name, target = f"killed-{victim.replace(' ', '-')}", random.randrange(2, small_training.STEPS - 6)
    nodes.complete()
    with driver(place, name, *TWO) as process:
        until(lambda: checkpoint(place, name)["step"] >= target, process, place, name)
        worker, files = random.choice(list(nodes.workers().items()))
        sent = time.time()
        if victim == "driver":
            process.send_signal(signal.SIGKILL)
            finish(process, place, name, -signal.SIGKILL)
        elif victim == "preempted driver":
            process.send_signal(signal.SIGTERM)
            finish(process, place, name, 3)
            sums = place.glob(f"{name}-work/train/*/*/checkpoints/step-*/SHA256SUMS")
            assert sent <= max(path.stat().st_mtime for path in sums) < sent + 10
        elif victim == "stopped worker":  # the other one waits for it in vain
            os.kill(worker, signal.SIGSTOP)
            finish(process, place, name)
            assert "Timeout (0:00:30)!" in (place / f"{name}.log").read_text()
        elif victim in ("worker", "preempted worker"):
            os.kill(worker, signal.SIGKILL if victim == "worker" else signal.SIGTERM)
            finish(process, place, name)
        else:
            nodes.kill(files)
            nodes.complete()
            finish(process, place, name)
    if "driver" in victim:
        train(place, name, *TWO)
    assert json.loads((place / name / "train.json").read_text())["resumed_at_step"] > 0
    for file in ("model.safetensors", "curves.csv"):
        same = (place / name / file).read_bytes() == (whole / file).read_bytes()
        assert same, f"{file} differs after the kill of a {victim} at step {target} or little later"


def test_training_goes_on_with_fewer_nodes_and_grows_again(nodes: Nodes, place: Path) -> None:
    name, changes = "elastic", (*TOGETHER, "train.workers={min: 1, max: 2}", "train.epochs=2000")
    nodes.complete()

    def went_on_with(workers: int, after: int) -> Callable[[], int]:
        """Until there is a later checkpoint by so many workers; gives its step."""

        def look() -> int:
            state = checkpoint(place, name)
            return state["step"] * (len(state["random"]) == workers and state["step"] > after)

        return look

    with driver(place, name, *changes) as process:
        step = until(went_on_with(2, 0), process, place, name)
        nodes.kill(next(iter(nodes.workers().values())))
        step = until(went_on_with(1, step), process, place, name)
        nodes.add()
        step = until(went_on_with(2, step), process, place, name)
        process.send_signal(signal.SIGTERM)
        finish(process, place, name, 3)
    state = checkpoint(place, name)
    assert state["step"] >= step
    assert state["images"] == 4 * state["step"]  # the same global batch all the way
    assert [row["step"] for row in state["rows"]] == [4 * (i + 1) for i in range(len(state["rows"]))]


def test_a_store_that_a_node_cannot_reach_is_exit_code_3(nodes: Nodes, place: Path, store) -> None:
    there = Location(store.bucket, "away")
    folder.push(place / "data", there / "data")
    nodes.complete()
    nodes.proxy.state = "503"
    try:
        train(place, "away", *TWO, code=3, data=there / "data")
    finally:
        nodes.proxy.state = "through"
    said = [line for line in (place / "away.log").read_text().splitlines() if line.startswith("error: ")]
    assert len(said) == 1
    assert str(there / "data") in said[0]
