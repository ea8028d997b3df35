"""A journal and its delivery to services that are down, refuse, or lose their answer."""

import json
import resource
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from waiting import LIMIT_S, until

from components.tracking import journal
from components.tracking.journal import DeliveryThread, Entry, Journal, open_journal
from yolo_core.errors import UserError

ROOT = Path(__file__).parents[4]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "FIRST_WAIT_S", 0.01)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "records.jsonl"


class Down(Exception):
    pass


class Refused(Exception):
    pass


class Service:
    """Keeps entries by number, as MLflow keeps one of equal metrics. outcomes: of the next calls; then all succeed.

    "down": nothing arrives; "answer lost": it arrives and the caller gets an error.
    """

    def __init__(self, *outcomes: str, refuses: frozenset[int] = frozenset()) -> None:
        self.outcomes, self.refuses = list(outcomes), refuses
        self.order: list[int] = []
        self.called: list[float] = []  # when, on the monotonic clock

    def __call__(self, entries: list[Entry]) -> None:
        self.called.append(time.monotonic())
        outcome = self.outcomes.pop(0) if self.outcomes else "well"
        if outcome == "down":
            raise Down("no answer")
        if self.refuses & {entry["n"] for entry in entries}:
            raise Refused("not like this")
        self.order += [entry["n"] for entry in entries if entry["n"] not in self.order]
        if outcome == "answer lost":
            raise Down("the answer was lost")


def delivery(book: Journal, service: Service) -> DeliveryThread:
    return DeliveryThread(book, service, lambda error: isinstance(error, Refused))


@given(outcomes=st.lists(st.sampled_from(["well", "down", "answer lost"]), max_size=6), count=st.integers(1, 8))
def test_every_entry_arrives_once_and_in_order(tmp_path_factory: pytest.TempPathFactory, outcomes, count):
    path = tmp_path_factory.mktemp("j") / "a.jsonl"
    service = Service(*outcomes)
    with pytest.MonkeyPatch.context() as patch, open_journal(path) as book:
        patch.setattr(journal, "FIRST_WAIT_S", 0.001)
        patch.setattr(journal, "LONGEST_WAIT_S", 0.001)
        thread = delivery(book, service)
        for value in range(count):
            book.append({"value": value})
            thread.notify()
        assert thread.finish(LIMIT_S)
    assert service.order == list(range(1, count + 1))


def test_what_was_not_delivered_is_left_for_the_next_process(path: Path):
    with open_journal(path, {"about": "x"}) as book:
        thread = delivery(book, Service(*["down"] * 1000))
        for value in "abc":
            book.append({"value": value})
        assert not thread.finish(0.05)
    assert journal.peek(path)[1] == 3
    service = Service()
    with open_journal(path, {"about": "something else"}) as book:
        assert (book.header["about"], [entry["value"] for entry in book.history]) == ("x", ["a", "b", "c"])
        book.append({"value": "d"})
        assert delivery(book, service).finish(LIMIT_S)
    assert service.order == [1, 2, 3, 4]
    assert journal.peek(path)[1] == 0


def test_a_refused_entry_is_set_aside_with_its_reason_and_the_others_arrive(path: Path):
    service = Service(refuses=frozenset({2}))
    with open_journal(path) as book:
        for value in "abcd":
            book.append({"value": value})
        assert delivery(book, service).finish(LIMIT_S)
    assert service.order == [1, 3, 4]
    aside = json.loads(path.with_suffix(".refused.jsonl").read_text())
    assert (aside["value"], aside["reason"]) == ("b", "not like this")
    assert journal.journals_in(path.parent) == [path]


def test_a_last_line_torn_by_a_kill_is_dropped(path: Path):
    with open_journal(path) as book:
        book.append({"value": "a"})
    with path.open("a") as file:
        file.write('{"n": 2, "val')
    with open_journal(path) as book:
        assert [entry["value"] for entry in book.history] == ["a"]
        book.append({"value": "b"})
    with open_journal(path) as book:
        assert [(entry["n"], entry["value"]) for entry in book.history] == [(1, "a"), (2, "b")]


@pytest.mark.parametrize("line", ["x", "[]", '{"value": 1}', '{"n": "1"}'])
def test_a_damaged_line_is_named(path: Path, line: str):
    with open_journal(path) as book:
        book.append({"value": "a"})
    with path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(UserError, match=r"records\.jsonl:3: damaged line"), open_journal(path):
        pass


def test_two_processes_do_not_write_one_journal(path: Path):
    code = "from components.tracking import journal\nfrom pathlib import Path\n"
    code += f"with journal.open_journal(Path({str(path)!r})): pass"
    with open_journal(path):
        other = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "Busy" in other.stderr
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_entries_written_before_a_kill_are_there(path: Path):
    """SIGKILL in the middle of writing: what `append` returned from is on the disk."""
    code = "\n".join(
        [
            "from components.tracking import journal",
            "from pathlib import Path",
            f"with journal.open_journal(Path({str(path)!r})) as book:",
            "    while True:",
            "        book.append({'value': 'x' * 1000})",
            "        print(book.last['n'], flush=True)",
        ]
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    for _ in range(20):
        last = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    last = max([last, *map(int, process.stdout.read().split())])
    process.wait()
    with open_journal(path) as book:
        assert [entry["n"] for entry in book.history][:last] == list(range(1, last + 1))


def test_a_full_disk_costs_nothing_while_the_service_is_up(path: Path, caplog: pytest.LogCaptureFixture):
    """A file size limit simulates the full disk: the kernel refuses the write in the same place."""
    service, limits = Service(), resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with open_journal(path) as book:
        book.append({"value": "before"})
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, limits[1]))
        try:
            book.append({"value": "x" * 100})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, ignored)
        assert "wait in memory" in caplog.text
        assert journal.peek(path)[1] == 1
        book.append({"value": "after"})  # there is space again
        assert journal.peek(path)[1] == 3
        assert delivery(book, service).finish(LIMIT_S)
    assert service.order == [1, 2, 3]


def test_waits_grow_and_end(path: Path, monkeypatch: pytest.MonkeyPatch):
    waits = [0.02, 0.04, 0.08, 0.16]
    monkeypatch.setattr(journal, "FIRST_WAIT_S", waits[0])
    service = Service(*["down"] * 1000)
    with open_journal(path) as book:
        book.append({})
        thread = delivery(book, service)
        until(lambda: len(service.called) > len(waits), "five attempts")
        thread.finish(0)
    gaps = [later - earlier for earlier, later in pairwise(service.called)]
    assert all(gap >= wait for gap, wait in zip(gaps, waits, strict=False)), gaps
