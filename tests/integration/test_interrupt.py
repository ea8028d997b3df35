"""Ctrl-C ends a training with exit code 130 and no traceback, and keeps its checkpoints."""

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import waiting
from tiny_project import MODEL, ROOT, write_params

from yolo_core.train import checkpoint


@pytest.fixture
def project(tmp_path: Path) -> Path:
    write_params(tmp_path)
    for stage in ("prepare", "anchors", "evolve"):
        assert start(tmp_path, stage).wait() == 0
    return tmp_path


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    """A command in a process group of its own, as a shell starts it; its output goes to a file.

    Ctrl-C reaches it even if the tests run in the background of a script, where it is ignored.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=(folder / "output").open("w"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        text=True,
    )


def checkpoints(project: Path) -> list[Path]:
    """The complete ones."""
    return [path for folder in project.glob(f"runs/train/{MODEL}/*/checkpoints") for path in checkpoint.found(folder)]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_in_a_training(project: Path, workers: int):
    words = ("train", "-S", "train.epochs=500", "-S", "train.checkpoint_every=1", "-S", f"train.workers={workers}")
    process = start(project, *words)
    waiting.until(lambda: checkpoints(project), "a checkpoint", process, project / "output")
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(waiting.LIMIT_S) == 130
    assert "Traceback" not in (project / "output").read_text()
    assert checkpoints(project)
