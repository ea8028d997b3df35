"""Folders that are kept equal with a prefix of the store."""

import threading
from pathlib import Path

import pytest
from waiting import until

from components.storage import folder
from components.storage.client import connect
from components.storage.location import Location

MIB = 1 << 20


def fill(root: Path, **files: bytes) -> Path:
    for name, data in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def files(root: Path) -> dict[str, bytes]:
    paths = (path for path in root.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def test_only_what_changed_is_transferred(remote: Location, tmp_path: Path):
    here, there = fill(tmp_path / "a", one=b"1", sub__two=b"22", three=b"333"), tmp_path / "b"
    assert folder.push(here, remote) == 3
    assert folder.pull(remote, there) == 3
    assert files(there) == files(here)
    assert folder.push(here, remote) == folder.pull(remote, there) == 0
    fill(here, one=b"x")  # of equal size
    assert folder.push(here, remote) == folder.pull(remote, there) == 1
    assert files(there) == files(here)


def test_equal_files_are_not_transferred_without_an_index(remote: Location, tmp_path: Path):
    here, copy = fill(tmp_path / "a", one=b"1", two=b"22"), fill(tmp_path / "b", one=b"1", two=b"xx")
    folder.push(here, remote)
    assert folder.push(copy, remote) == 1  # two
    assert folder.pull(remote, here) == 1


def test_a_file_damaged_locally_is_downloaded_again(remote: Location, tmp_path: Path):
    here, there = fill(tmp_path / "a", one=b"111"), tmp_path / "b"
    folder.push(here, remote)
    folder.pull(remote, there)
    (there / "one").write_bytes(b"1x1")
    assert folder.pull(remote, there) == 1
    assert files(there) == {"one": b"111"}


def test_a_push_deletes_nothing_and_reports_what_it_left(
    remote: Location, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    folder.push(fill(tmp_path / "a", one=b"1", two=b"2"), remote)
    folder.push(fill(tmp_path / "b", one=b"1"), remote)
    assert set(folder.listing(connect(), remote)) == {"one", "two"}
    assert "1 objects there are not part of this result and were left in place, such as two" in caplog.text


def test_a_live_folder_removes_what_it_uploaded_itself(remote: Location, tmp_path: Path):
    here = fill(tmp_path / "a", one=b"1", two=b"2")
    folder.push(here, remote, live=True)
    folder.push(fill(tmp_path / "b", other=b"3"), remote)
    (here / "one").unlink()
    folder.push(here, remote, live=True)
    assert set(folder.listing(connect(), remote)) == {"two", "other"}


def test_a_pull_removes_what_it_downloaded_and_nothing_else(remote: Location, tmp_path: Path):
    folder.push(fill(tmp_path / "a", one=b"1", two=b"2"), remote)
    folder.pull(remote, tmp_path / "b")
    fill(tmp_path / "b", mine=b"3")
    connect().delete_object(Bucket=remote.bucket, Key=(remote / "one").key)
    folder.pull(remote, tmp_path / "b")
    assert files(tmp_path / "b") == {"two": b"2", "mine": b"3"}


def test_a_folder_that_another_process_synchronises_is_waited_for_with_a_log_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    entered = threading.Event()

    def enter() -> None:
        with folder.alone_with(tmp_path):
            entered.set()

    with folder.alone_with(tmp_path):
        waiting = threading.Thread(target=enter)
        waiting.start()
        until(lambda: caplog.records, "a line says that it waits")
        assert not entered.wait(0.2)
    waiting.join(60)
    assert entered.is_set()
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}: another process is synchronising this folder; waiting until it has finished"
    ]


def test_progress_counts_files_and_parts(remote: Location, tmp_path: Path):
    seen = {}

    def track(items, label, total=None):
        seen[label] = [total, 0]
        for item in items:
            seen[label][1] += 1
            yield item

    here = fill(tmp_path / "a", one=b"1", two=b"22", large=bytes(17 * MIB))
    folder.push(here, remote, track)
    assert seen == {f"upload s3://{remote.bucket}": [2, 2], "upload large (parts)": [3, 3]}
