"""The ten stages look up no host, talk to this machine only, and write nothing outside the project."""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from system_calls import Trace, traced, why_not
from tiny_project import ROOT, write_params

from components.stage_table import STAGES

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

KEPT_AT_HOME = (".cache/matplotlib", ".config/matplotlib", ".ray")  # fonts, settings; the token of local clusters
# PyTorch's store asks for the name of each peer; glibc finds ::ffff:127.0.0.1 in no /etc/hosts and asks its server.
LOOPBACK_NAME = "1.0.0.127.in-addr.arpa"


class Project:
    """A folder with a home of its own; temporary: its TMPDIR."""

    def __init__(self, place: Path, temporary: Path) -> None:
        self.place, self.folder, self.home, self.temporary = place, place / "project", place / "home", temporary
        for folder in (self.folder, self.home / ".cache", self.home / ".config"):
            folder.mkdir(parents=True)
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "LD_LIBRARY_PATH") if name in os.environ}
        self.variables = {
            **kept,
            "HOME": str(self.home),
            "TMPDIR": str(self.temporary),
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
        }

    def run(self, *command: str) -> Trace:
        logs = self.place / f"logs-{len(list(self.place.iterdir()))}"
        return traced([sys.executable, *command], self.folder, self.variables, logs)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with tempfile.TemporaryDirectory(prefix="ray-") as temporary:  # a short path, for Ray's sockets
        yield Project(tmp_path, Path(temporary))


def test_a_look_up_a_connection_and_a_file_are_seen(project: Project):
    script = """
import contextlib, os, pathlib, socket, subprocess, sys
child = '''
import contextlib, socket, threading
def ask():
    with contextlib.suppress(OSError):
        socket.getaddrinfo("host.invalid", 80)
thread = threading.Thread(target=ask)
thread.start()
thread.join()
'''
subprocess.run([sys.executable, "-c", child], check=True)
with contextlib.suppress(OSError), socket.socket() as one:
    one.settimeout(0.1)
    one.connect(("192.0.2.77", 80))
with contextlib.suppress(OSError), socket.socket() as one:
    one.connect(("127.0.0.1", 9))
os.chdir("..")
pathlib.Path("outside").write_text("text")
pathlib.Path("project/inside").write_text("text")
"""
    trace = project.run("-c", script)
    assert trace.code == 0, trace.output
    assert any(name.startswith("host.invalid") for name in trace.names)  # also with a search domain behind it
    assert trace.addresses == {"192.0.2.77"}
    assert trace.written_outside(project.folder) == [str(project.place / "outside")]


@pytest.mark.slow
def test_the_stages_keep_to_the_project_and_this_machine(project: Project):
    workers = {"evolve": {"trials": 1, "epochs": 1}, "train": {"workers": 2}}  # both start a local Ray cluster
    write_params(project.folder, **workers)
    for stage in STAGES:
        trace = project.run("-m", "pipelines.cli", stage.command)
        assert trace.code == 0, trace.output
        assert trace.names <= ({LOOPBACK_NAME} if stage.name == "train" else set()), stage.name
        assert trace.addresses == set(), stage.name
        kept = [project.home / name for name in KEPT_AT_HOME]
        assert trace.written_outside(project.folder, project.temporary, *kept) == [], stage.name
