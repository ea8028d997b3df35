"""What drills share: data, services and nodes, started when a drill first needs them."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import ray_nodes
import small_training
from faulty_proxy import FaultyProxy
from ray_nodes import Nodes
from waiting import LIMIT_S

from infra.local import servers
from infra.local.services import STORE, TRACKING, Services, running
from tests.drills.report import Lost

TWO = ("train.sync_bn=true", "train.amp=false", "train.workers=2", "train.stall_minutes=0.5")


class Grounds(contextlib.ExitStack):
    """folder: holds everything; `project` in it the data and the results of each training, by name."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    @cached_property
    def project(self) -> Path:
        made = self.folder / "train"
        made.mkdir()
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{made / 'mlflow.db'}"
        return small_training.prepared(made)

    @cached_property
    def services(self) -> Services:
        """An object store; also MLflow with accounts, once `tracking` is used."""
        return self.enter_context(running(self.folder / "services", STORE, sqlite=True))

    @cached_property
    def tracking(self) -> dict[str, str]:
        """The environment variables of the store and MLflow."""
        self.services.up(TRACKING)
        return self.services.variables()

    @cached_property
    def bucket(self) -> str:
        """The store's bucket; sets the store's environment variables."""
        os.environ.update({k: v for k, v in self.services.variables().items() if k.startswith("AWS_")})
        return servers.BUCKET

    @cached_property
    def nodes(self) -> Nodes:
        """A cluster of a head and two nodes."""
        project, _ = self.project, self.bucket  # the nodes inherit the store's environment variables
        os.environ.update(RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S="40", PYTHONPATH=str(small_training.ROOT))
        proxy = self.enter_context(FaultyProxy(os.environ["AWS_ENDPOINT_URL"]))
        started = Nodes(project, proxy)
        self.callback(started.cluster.shutdown)
        started.complete()
        return started

    def end_nodes(self) -> None:
        """Stop the cluster; the next use of `nodes` starts another."""
        self.nodes.cluster.shutdown()
        del self.nodes

    @contextlib.contextmanager
    def on_nodes(self) -> Iterator[Nodes]:
        """Stages run on the cluster inside the block."""
        self.nodes.complete()
        with environment(RAY_ADDRESS=self.nodes.cluster.address):
            yield self.nodes

    @cached_property
    def whole(self) -> Path:
        """Results of an undisturbed training in one process."""
        ray_nodes.train(self.project, "whole")
        return self.project / "whole"

    @cached_property
    def whole_of_two(self) -> Path:
        """Results of an undisturbed training on two nodes."""
        with self.on_nodes():
            ray_nodes.train(self.project, "whole-of-two", *TWO)
        return self.project / "whole-of-two"


@contextlib.contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Set environment variables inside the block."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def started(home: Path, *words: object) -> Iterator[subprocess.Popen]:
    """Run a `scaled-yolov4` command in that working folder, killed at the end of the block; stderr goes to `log`."""
    program = [sys.executable, "-m", "components.cli", *map(str, words)]
    variables = {**os.environ, "PYTHONPATH": str(small_training.ROOT)}
    with (home / "log").open("a") as log:
        process = subprocess.Popen(program, cwd=home, env=variables, stdout=subprocess.PIPE, stderr=log, text=True)
    with process:
        try:
            yield process
        finally:
            process.kill()


def stage(home: Path, *words: object, code: int = 0) -> str:
    """Run a command to its end and return what it prints. Raises Lost on another exit code."""
    with started(home, *words) as process:
        output = process.communicate(timeout=LIMIT_S)[0]
    if process.returncode != code:
        log = (home / "log").read_text()[-2000:]
        raise Lost(f"`{words[0]}` ended with exit code {process.returncode} instead of {code}: {log}")
    return output


def same(one: Path, other: Path, *files: str) -> None:
    """Raise Lost if any of these files differs between two folders."""
    for file in files:
        if (one / file).read_bytes() != (other / file).read_bytes():
            raise Lost(f"{file} differs: {one} and {other}")


def wait(true: Callable[[], Any], what: str, limit_s: float = LIMIT_S) -> Any:
    """Poll `true` until its value is truthy, and return that value. Raises Lost after `limit_s` seconds."""
    deadline = time.monotonic() + limit_s
    while not (value := true()):
        if time.monotonic() > deadline:
            raise Lost(f"not within {limit_s:.0f} s: {what}")
        time.sleep(0.02)
    return value
