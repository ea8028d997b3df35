"""Files appear complete or not at all."""

import json
from pathlib import Path

import pytest

from yolo_core import atomic


def test_text_and_json_are_written_with_the_folders_they_need(tmp_path: Path) -> None:
    atomic.write_text(tmp_path / "a" / "b.txt", "grün\n")
    atomic.write_json(tmp_path / "c.json", {"b": 1, "a": [1.5, None]})
    assert (tmp_path / "a" / "b.txt").read_bytes() == "grün\n".encode()
    text = (tmp_path / "c.json").read_text()
    assert text.startswith('{\n "b": 1,')  # one space, keys as given
    assert text.endswith("}\n")
    assert json.loads(text) == {"b": 1, "a": [1.5, None]}


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    atomic.write_bytes(path, b"old")

    def fail_half_way() -> None:
        with atomic.replaced(path) as aside:
            aside.write_bytes(b"half")
            assert path.read_bytes() == b"old"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_temporary_file_keeps_folder_and_suffix(tmp_path: Path) -> None:
    with atomic.replaced(tmp_path / "plot.png") as aside:
        assert (aside.parent, aside.suffix) == (tmp_path, ".png")
        aside.write_bytes(b"new")
    assert (tmp_path / "plot.png").read_bytes() == b"new"


def test_files_get_the_mode_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "usual").write_text("")
    atomic.write_text(tmp_path / "written", "")
    assert (tmp_path / "written").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    with atomic.replaced_folder(tmp_path / "out") as aside:
        (aside / "sub").mkdir()
        (aside / "sub" / "file").write_text("1")
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "out" / "sub" / "file").read_text() == "1"
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_a_folder_with_content_is_not_deleted_to_make_room(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("1")
    with pytest.raises(OSError, match="not empty"), atomic.replaced_folder(tmp_path / "out"):
        pass
    assert (tmp_path / "out" / "precious").exists()
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]
