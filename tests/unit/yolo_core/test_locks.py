"""A lock is held by one process at a time, and released when that process ends."""

import subprocess
import sys
from pathlib import Path

import pytest

from yolo_core.errors import TryAgain, UserError
from yolo_core.locks import exclusive

HOLD = """
import sys
from pathlib import Path
from yolo_core.locks import exclusive
with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "a" / "lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_a_lock_held_by_another_process_raises_our_error(holder, tmp_path: Path):
    with pytest.raises(UserError, match=r"^busy here$"), exclusive(tmp_path / "a" / "lock", "busy here"):
        pass
    with pytest.raises(TryAgain), exclusive(tmp_path / "a" / "lock", TryAgain("later")):
        pass


def test_it_is_free_when_its_holder_was_killed(holder, tmp_path: Path):
    holder.kill()
    holder.wait()
    with exclusive(tmp_path / "a" / "lock", "busy"):
        pass


def test_it_can_be_taken_again(tmp_path: Path):
    for _ in range(2):
        with exclusive(tmp_path / "lock", "busy"):
            pass
