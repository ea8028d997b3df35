"""How hostile input is made, and what it may lead to: a refusal in one line, or no harm.

Inputs are valid files with structured damage, and random bytes. While one is read, an audit hook watches for writes
outside the case's folder and for started processes and connections; time and memory have limits.
"""

import contextlib
import copy
import json
import math
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from waiting import LIMIT_S

from yolo_core.errors import UserError

QUICK, SLOW = 300, 10_000  # cases over all kinds of file
# Percent of the cases that each kind of file gets.
SHARES = {
    "annotations": 14, "xml": 4, "obj.data": 2, "labels": 8, "images": 16, "params": 12, "checkpoints": 6,
    "detectors": 8, "darknet": 5, "pickles": 12, "ledgers": 5, "manifests": 4, "archives": 4,
}  # fmt: skip
CPU_SECONDS, MEMORY_BYTES, LONGEST_LINE = 20, 1 << 30, 2000
# Work is measured in CPU time, which is independent of load; the other timer is for what only waits.
TIMERS = ((signal.SIGPROF, signal.ITIMER_PROF, CPU_SECONDS), (signal.SIGALRM, signal.ITIMER_REAL, LIMIT_S))
DEEP = 100_000  # nested brackets

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
PATH_EVENTS = {"os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.chmod", "os.rename", "os.link", "os.symlink"}
RUN_EVENTS = {"os.system", "os.exec", "os.fork", "os.posix_spawn", "subprocess.Popen", "socket.connect", "pty.spawn"}


def fuzz(kind: str, cases: st.SearchStrategy) -> Callable[[Callable[[Any, Path], None]], Callable[..., None]]:
    """Make a test of a check `(case, folder)`: the kind's share of the quick cases, and a slow twin with its share."""
    counts = [count * SHARES[kind] // 100 for count in (QUICK, SLOW)]

    def decorate(check: Callable[[Any, Path], None]) -> Callable[..., None]:
        @pytest.mark.parametrize("count", [counts[0], pytest.param(counts[1], marks=pytest.mark.slow)])
        def test(count: int, tmp_path: Path) -> None:
            @settings(
                max_examples=count,
                derandomize=count == counts[0],
                database=None,
                phases=[Phase.generate, Phase.shrink],
                suppress_health_check=list(HealthCheck),
            )
            @given(cases)
            def holds(case: Any) -> None:
                with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
                    check(case, Path(folder))

            holds()

        test.__doc__ = check.__doc__
        return test

    return decorate


def outcome(action: Callable[[], Any], folder: Path) -> Any:
    """What the action returned, or the UserError that it raised; anything else is a failure."""
    with harmless(folder):
        try:
            return action()
        except UserError as error:
            assert_one_line(str(error))
            return error


def assert_one_line(text: str) -> None:
    text.encode()  # a lone surrogate cannot be printed
    assert len(text.splitlines()) == 1, text
    assert len(text) <= LONGEST_LINE, f"{len(text)} characters: {text[:200]}"


@contextlib.contextmanager
def harmless(folder: Path) -> Iterator[None]:
    """Fail if the block takes too much time or memory, writes outside `folder`, or starts a process or connection."""
    before = _peak_bytes(reset=True)
    _watch.begin(folder)
    for number, timer, seconds in TIMERS:
        signal.signal(number, _too_long)
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for _, timer, _ in TIMERS:
            signal.setitimer(timer, 0)
        seen = _watch.end()
    assert not seen, seen
    assert _peak_bytes() - before < MEMORY_BYTES


def _too_long(*_: object) -> None:
    pytest.fail(f"took more than {CPU_SECONDS} s of CPU time, or did not end within {LIMIT_S:.0f} s")


def _peak_bytes(reset: bool = False) -> int:
    """Peak memory of this process since the last reset."""
    if reset:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class _Watch:
    """Notes forbidden events between `begin` and `end`; an audit hook cannot be removed, so there is one."""

    def __init__(self) -> None:
        self._folder: str | None = None
        self._seen: list[str] = []
        sys.addaudithook(self._notice)

    def begin(self, folder: Path) -> None:
        self._seen = []
        self._folder = os.path.realpath(folder)

    def end(self) -> list[str]:
        self._folder = None
        return self._seen

    def _notice(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._folder is None:
            return
        if event in RUN_EVENTS:
            self._seen.append(f"{event} {arguments[:2]!r}"[:200])
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING
        in_open_folder = event in PATH_EVENTS and arguments[-1] not in (None, -1)  # a name below a folder's handle
        paths = arguments[:1] if writes else arguments[:2] if event in PATH_EVENTS and not in_open_folder else ()
        for path in paths:
            if isinstance(path, str | bytes | os.PathLike) and self._is_outside(os.fsdecode(path)):
                self._seen.append(f"{event} {path!r}"[:200])

    def _is_outside(self, path: str) -> bool:
        real = os.path.realpath(path)
        harmless = real == os.devnull or "__pycache__" in real
        return not harmless and os.path.commonpath([real, str(self._folder)]) != self._folder


_watch = _Watch()

NUMBERS = st.sampled_from(
    [0, -1, 1, 0.5, -0.0, 1e-320, 1e308, -1e308, math.nan, math.inf, -math.inf, 2**31, 2**63, -(2**63), 2**64, 10**400]
)
TEXTS = st.sampled_from(
    [
        "",
        " ",
        "../../up",
        "/etc/passwd",
        "a\0b",
        "\ud800",
        "x" * 5000,
        "a\nb\r\u2028c",
        "\x1b[2J",
        "C:\\x",
        "1e999",
        "%s{0}",
    ]
)
LEAVES = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
VALUES = st.one_of(
    LEAVES, st.lists(LEAVES, max_size=4), st.dictionaries(TEXTS, LEAVES, max_size=3), st.lists(st.lists(LEAVES))
)
_DEEP_MARK = "a value of great depth"


@st.composite
def damaged_tree(draw: st.DrawFn, tree: Any) -> Any:
    """A copy of a tree of dicts and lists in which up to three values are replaced, removed or duplicated."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(0, 3))):
        places = list(_places(tree))
        if not places:
            break
        holder, key = places[draw(st.integers(0, len(places) - 1))]
        match draw(st.sampled_from(["replace", "replace", "replace", "remove", "double"])):
            case "replace":
                holder[key] = draw(VALUES | st.just(_DEEP_MARK))
            case "remove":
                del holder[key]
            case "double" if isinstance(holder, list):
                holder.append(copy.deepcopy(holder[key]))
            case "double":
                holder[f"{key}_"] = holder[key]
    return tree


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else []
    for key in keys:
        yield tree, key
        yield from _places(tree[key])


@st.composite
def damaged_bytes(draw: st.DrawFn, data: bytes) -> bytes:
    """The bytes with up to four places cut, flipped, overwritten, repeated or filled; or any bytes."""
    if draw(st.integers(0, 19)) == 0:
        return draw(st.binary(max_size=200))
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(changed) - 1)))
        match draw(st.sampled_from(["flip", "set", "extreme", "cut", "drop", "repeat", "insert"])):
            case "flip" if changed:
                changed[at] ^= 1 << draw(st.integers(0, 7))
            case "set" if changed:
                changed[at] = draw(st.integers(0, 255))
            case "extreme":
                size = draw(st.sampled_from([1, 2, 4, 8]))
                changed[at : at + size] = draw(st.sampled_from([b"\0", b"\xff", b"\x7f", b"\x80"])) * size
            case "cut":
                del changed[at:]
            case "drop":
                del changed[at : at + draw(st.integers(1, 64))]
            case "repeat":
                changed[at:at] = changed[at : at + draw(st.integers(1, 64))]
            case "insert":
                changed[at:at] = draw(st.binary(min_size=1, max_size=8))
    return bytes(changed)


@st.composite
def damaged_json(draw: st.DrawFn, document: Any) -> bytes:
    """A JSON file with damaged values, deep nesting or duplicate keys; sometimes its bytes are damaged too."""
    text = json.dumps(draw(damaged_tree(document)))
    text = text.replace(json.dumps(_DEEP_MARK), "[" * DEEP + "]" * DEEP)
    if draw(st.integers(0, 9)) == 0:  # the same key again, with another value
        at = text.find("{", draw(st.integers(0, len(text))))
        key = draw(st.sampled_from(["id", "images", "bbox", "files", "trial"]))
        text = text[: at + 1] + f'"{key}": [], ' + text[at + 1 :]
    data = text.encode()
    return draw(damaged_bytes(data)) if draw(st.integers(0, 3)) == 0 else data
