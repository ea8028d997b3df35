"""A Ray cluster of several nodes on this machine, and trainings on it that may lose processes."""

import contextlib
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import waiting
from faulty_proxy import FaultyProxy
from small_training import MODEL, command
from waiting import LIMIT_S

from components.training.nodes import NODE_VARIABLE


class Nodes:
    """A cluster whose head runs only the driver. Its other nodes have one CPU, own files and access to the store."""

    def __init__(self, folder: Path, proxy: FaultyProxy) -> None:
        from ray.cluster_utils import Cluster

        self.folder, self.proxy = folder, proxy
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self.started: list[tuple[Any, Path]] = []

    def add(self) -> Path:
        """Start a node; returns the folder of its files."""
        files = self.folder / f"node{len(self.started) + 1}"
        variables = {NODE_VARIABLE: str(files), "AWS_ENDPOINT_URL": self.proxy.url}
        self.started.append((self.cluster.add_node(num_cpus=1, env_vars=variables), files))
        return files

    @property
    def living(self) -> list[tuple[Any, Path]]:
        return [(node, files) for node, files in self.started if node in self.cluster.worker_nodes]

    def complete(self, count: int = 2) -> None:
        """Wait for that many nodes."""
        while len(self.living) < count:
            self.add()

    def kill(self, files: Path) -> None:
        """Kill a node by SIGKILL to its raylet."""
        node = next(node for node, at in self.living if at == files)
        self.cluster.remove_node(node, allow_graceful=False)

    def workers(self) -> dict[int, Path]:
        """The training processes by process id, with the folder of their node."""
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if b"RayTrainWorker" not in (entry / "cmdline").read_bytes():
                    continue
                variables = (entry / "environ").read_bytes().decode(errors="replace")
                for _, files in self.living:
                    if f"{NODE_VARIABLE}={files}\0" in variables:
                        found[int(entry.name)] = files
        return found


@contextlib.contextmanager
def driver(project: Path, name: str, *changes: str, **options: object) -> Iterator[subprocess.Popen]:
    """The stage as a process, killed at the end of the block."""
    home = project / f"{name}-cwd"
    home.mkdir(exist_ok=True)
    words = command(project, name, *changes, **options)
    with (
        (project / f"{name}.log").open("a") as log,
        subprocess.Popen(words, cwd=home, stdout=log, stderr=log) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def finish(process: subprocess.Popen, project: Path, name: str, code: int = 0) -> None:
    ended = process.wait(LIMIT_S)
    assert ended == code, (project / f"{name}.log").read_text()[-5000:]


def train(project: Path, name: str, *changes: str, code: int = 0, **options: object) -> None:
    """Run the stage to its end."""
    with driver(project, name, *changes, **options) as process:
        finish(process, project, name, code)


def until(true: Callable[[], Any], process: subprocess.Popen, project: Path, name: str) -> Any:
    """Poll `true` until its value is truthy, and return that value."""
    return waiting.until(true, f"what the test waits for in {name}", process, project / f"{name}.log")


def checkpoint(project: Path, name: str) -> dict[str, Any]:
    """The state in the newest checkpoint; step 0 before the first."""
    found = sorted((project / f"{name}-work" / "train" / MODEL).glob("*/checkpoints/step-*/state.json"))
    with contextlib.suppress(OSError):  # it may be replaced meanwhile
        if found:
            return json.loads(found[-1].read_text())
    return {"step": 0, "random": [], "images": 0}
