"""A drill of the hyperparameter search: it is killed, and the last line of its ledger truncated."""

import contextlib
import subprocess
import time
from pathlib import Path

import small_search
from small_search import SEARCH, results

from tests.drills.grounds import LIMIT_S, Grounds, environment, started, wait
from tests.drills.report import Found, Lost

TRIALS, AT_A_TIME = 4, 2


def killed(grounds: Grounds) -> Found:
    folder = grounds.folder / "search"
    prepared, whole, broken = small_search.prepared(folder), folder / "whole", folder / "killed"
    with environment(MLFLOW_TRACKING_URI=f"sqlite:///{folder}/mlflow.db"):
        with _search(whole, prepared) as process:
            _finish(process)
        with _search(broken, prepared) as process:
            ledger = small_search.wait_for_a_trial(process, broken / "work")
            process.kill()
        kept = ledger.read_bytes()
        ledger.write_bytes(kept + b'{"trial": 3, "par')
        began = time.monotonic()
        with _search(broken, prepared) as process:
            wait(lambda: process.poll() is not None or _trials(ledger) > kept.count(b"\n") - 1, "a further trial")
            seconds = time.monotonic() - began
            _finish(process)
    found = broken / "out" / "ledger.jsonl"
    if not found.read_bytes().startswith(kept):
        raise Lost("the ledger's earlier lines changed")
    if results(found) != results(whole / "out" / "ledger.jsonl") or len(results(found)) != TRIALS:
        raise Lost("the trials differ from those of the undisturbed search")
    return Found(f"at most {AT_A_TIME} of {TRIALS} trials: those running", seconds)


def _trials(ledger: Path) -> int:
    """Number of complete trials in the ledger; a truncated line is not yet dropped when the search starts."""
    return ledger.read_bytes().count(b"\n") - 1 if ledger.exists() else TRIALS


def _search(folder: Path, prepared: Path) -> contextlib.AbstractContextManager[subprocess.Popen]:
    folder.mkdir(exist_ok=True)
    return started(folder, *small_search.words(folder, prepared, *SEARCH))


def _finish(process: subprocess.Popen) -> None:
    if process.wait(LIMIT_S):
        raise Lost(f"the search ended with exit code {process.returncode}")
