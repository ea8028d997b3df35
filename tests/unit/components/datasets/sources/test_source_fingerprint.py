"""What distinguishes one state of a folder from another."""

import os
from pathlib import Path

import pytest
from coco_source import parameters

from components.datasets import sources
from components.datasets.sources.fingerprint import file_times
from yolo_core.errors import UserError


def test_every_change_of_a_file_changes_it_and_reading_does_not(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    file = tmp_path / "below/a"
    file.write_text("one")
    first = file_times(tmp_path)
    file.read_text()
    assert file_times(tmp_path) == first
    file.write_text("two")
    os.utime(file, ns=(0, 0))
    touched = file_times(tmp_path)
    file.rename(tmp_path / "below/b")
    assert len({first, touched, file_times(tmp_path)}) == 3


def test_linked_folders_count_and_a_link_back_ends(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    root = tmp_path / "root"
    root.mkdir()
    (root / "images").symlink_to(tmp_path / "elsewhere")
    assert file_times(root) is None  # nothing has none
    (tmp_path / "elsewhere/a").touch()
    before = file_times(root)
    (tmp_path / "elsewhere/back").symlink_to(root)
    (tmp_path / "elsewhere/lost").symlink_to(tmp_path / "nowhere")
    assert file_times(root) == before
    (tmp_path / "elsewhere/b").touch()
    assert file_times(root) != before


def test_no_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        file_times(tmp_path / "none")


def test_a_dataset_yaml_may_name_images_anywhere(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").touch()
    given = parameters("prepare.source=yolo-dir", f"prepare.location={tmp_path}")
    assert sources.module("yolo-dir").resolve(given).fingerprint
    (tmp_path / "data.yaml").touch()
    assert sources.module("yolo-dir").resolve(given).fingerprint is None
