"""Processes for tests that must not inherit this one's memory: forks of a server that has imported PyTorch once."""

import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

START_METHOD = "forkserver"
FORKS = multiprocessing.get_context(START_METHOD)
FORKS.set_forkserver_preload(["pytest", "components.stages.train", "mlflow"])


def started(command: Sequence[str], folder: Path) -> BaseProcess:
    """Run `python -c CODE WORDS...` as such a process, with this one's environment."""
    process = FORKS.Process(target=_run, args=(command[2], command[3:], dict(os.environ), folder))
    process.start()
    return process


def _run(code: str, words: Sequence[str], variables: Mapping[str, str], folder: Path) -> None:
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    sys.argv = ["-c", *words]
    exec(code, {"__name__": "__main__"})
