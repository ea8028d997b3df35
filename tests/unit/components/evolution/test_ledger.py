"""The ledger of a search: durable lines, torn last lines, damage, and one writer at a time."""

import json
from pathlib import Path

import pytest

from components.evolution.ledger import Confirmation, Record, opened
from yolo_core.errors import UserError


def record(trial: int, **values) -> Record:
    usual = {"parent": 0, "hyp": {"lr0": 0.1}, "fitness": 0.2, "AP": 0.2, "AP50": 0.2, "seconds": 1.0, "elapsed": 2.0}
    return Record(trial, **(usual | values))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "work" / "ledger.jsonl"
    with opened(path, "d1") as ledger:
        ledger.append(record(0, parent=None))
        ledger.append(record(1, fitness=0.0, reason="ValueError: no", elapsed=7.5))
    return path


def test_what_was_written_comes_back(path):
    with opened(path, "d1") as ledger:
        assert ledger.records == {
            0: record(0, parent=None),
            1: record(1, fitness=0.0, reason="ValueError: no", elapsed=7.5),
        }
        assert ledger.elapsed == 7.5


def test_the_first_line_holds_the_digest(path):
    assert json.loads(path.read_text().splitlines()[0]) == {"digest": "d1"}
    assert len(path.read_text().splitlines()) == 3


@pytest.mark.parametrize("cut", [1, 2, 40])
def test_a_torn_last_line_is_dropped_and_its_place_used(path, cut):
    path.write_bytes(path.read_bytes()[:-cut])
    with opened(path, "d1") as ledger:
        assert list(ledger.records) == [0]
        ledger.append(record(5))
    with opened(path, "d1") as ledger:
        assert list(ledger.records) == [0, 5]


def test_a_torn_header_starts_a_new_ledger(path):
    path.write_text('{"digest": "d')
    with pytest.raises(UserError, match="another search"), opened(path, "d1"):
        pass


def test_another_digest_is_refused(path):
    with pytest.raises(UserError, match=r"ledger.jsonl:1: .*another search"), opened(path, "d2"):
        pass


@pytest.mark.parametrize("line", ["{not json", "[1, 2]", '{"trial": 3}', ""])
def test_damage_names_its_line(path, line):
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], line, *lines[1:]]) + "\n")
    with pytest.raises(UserError, match=r"ledger.jsonl:2: damaged line"), opened(path, "d1"):
        pass


def test_one_writer_at_a_time(path):
    with opened(path, "d1"), pytest.raises(UserError, match="another search"), opened(path, "d1"):
        pass


def test_numbers_that_are_not_finite_are_refused(path):
    with opened(path, "d1") as ledger, pytest.raises(ValueError, match="not JSON compliant"):
        ledger.append(record(9, fitness=float("nan")))


def test_confirmations_are_kept_beside_the_trials(path):
    one = Confirmation(1, 7, "plan", fitness=0.3, AP=0.3, AP50=0.3, seconds=4.0, elapsed=9.0)
    with opened(path, "d1") as ledger:
        ledger.append(one)
    with opened(path, "d1") as ledger:
        assert (sorted(ledger.records), ledger.confirmations) == ([0, 1], [one])
        assert (ledger.elapsed, ledger.seconds) == (9.0, 1.0 + 1.0 + 4.0)


def test_decisions_of_the_halving_are_read_back(path):
    with opened(path, "d1") as ledger:
        ledger.append(record(2, rungs=[0.1, 0.2], stopped_at=4))
    with opened(path, "d1") as ledger:
        assert (ledger.records[2].rungs, ledger.records[2].stopped_at) == ([0.1, 0.2], 4)


@pytest.mark.parametrize(
    ("key", "value"), [("trial", -1), ("fitness", 2), ("hyp", {"lr0": "x"}), ("seconds", -1), ("rungs", [None])]
)
def test_impossible_values_are_damage(path, key, value):
    lines = path.read_text().splitlines()
    lines[2] = json.dumps({**json.loads(lines[2]), key: value})
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=r"ledger.jsonl:3: damaged line"), opened(path, "d1"):
        pass
