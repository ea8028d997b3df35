"""Preparing again: only images that changed are read, and no change is missed."""

import os
import time
from pathlib import Path

import pytest
from coco_source import CocoFolder, content, encoded, parameters, pixels

from components.datasets import image_index
from components.datasets.image_check import check_image
from components.stages import prepare

IMAGES = 6
HOUR_NS = 3600 * 10**9


@pytest.fixture
def source(tmp_path, monkeypatch) -> CocoFolder:
    folder = CocoFolder(tmp_path / "source")
    # The change time of an inode cannot be set; the clock that it is compared with can.
    monkeypatch.setattr(time, "time_ns", lambda now=time.time_ns: now() + HOUR_NS)
    return folder


def run(source: CocoFolder, folder: Path) -> int:
    """How many images did not have to be read."""
    location = f"prepare.location={source.save()}"
    options = parameters("prepare.source=coco-dir", location, "prepare.max_bad_fraction=0.5")
    return prepare.run(options, out=folder / "out", work=folder / "work")["unchanged"]


def fresh(source: CocoFolder, folder: Path) -> dict[str, bytes]:
    """The folder as prepared without an index."""
    prepare.run(parameters("prepare.source=coco-dir", f"prepare.location={source.root}"), out=folder / "fresh")
    return content(folder / "fresh")


def image(source: CocoFolder) -> Path:
    return source.root / "images/train/1.jpg"


def test_nothing_is_read_twice(source, tmp_path):
    assert run(source, tmp_path) == 0
    first = content(tmp_path / "out")
    assert [run(source, tmp_path), run(source, tmp_path)] == [IMAGES, IMAGES]
    assert content(tmp_path / "out") == first == fresh(source, tmp_path)


def test_another_size_is_noticed(source, tmp_path):
    run(source, tmp_path)
    source.put("1.jpg", encoded(pixels(seed=99)))
    assert run(source, tmp_path) == IMAGES - 1
    assert content(tmp_path / "out") == fresh(source, tmp_path)


def test_one_byte_is_noticed_though_size_and_time_of_modification_are_as_before(source, tmp_path):
    run(source, tmp_path)
    path, state = image(source), image(source).stat()
    data = bytearray(path.read_bytes())
    data[-10] ^= 1
    check_image(bytes(data))  # still a valid image
    path.write_bytes(data)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert path.stat().st_size == state.st_size
    assert run(source, tmp_path) == IMAGES - 1
    assert (tmp_path / "out/images/train/1.jpg").read_bytes() == data


def test_a_file_modified_just_before_it_was_read_is_not_trusted(source, tmp_path, monkeypatch):
    monkeypatch.undo()  # the real clock: all images were written within the last two seconds
    run(source, tmp_path)
    assert run(source, tmp_path) == 0


def test_another_recorded_size_is_checked_again(source, tmp_path):
    run(source, tmp_path)
    source.train["images"][0] |= {"width": 48, "height": 64}  # no longer the file's
    assert run(source, tmp_path) == IMAGES - 1
    assert not (tmp_path / "out/images/train/1.jpg").exists()


def test_a_changed_copy_is_rewritten(source, tmp_path):
    run(source, tmp_path)
    first = content(tmp_path / "out")
    (tmp_path / "out/images/val/2.jpg").write_bytes(b"spoiled")
    assert run(source, tmp_path) == IMAGES - 1
    assert content(tmp_path / "out") == first


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"rules": 1, "files": {}}', b'{"files": {"a": [1]}}'])
def test_a_damaged_index_is_ignored(source, tmp_path, damage):
    run(source, tmp_path)
    (file,) = (tmp_path / "work/prepare").iterdir()
    file.write_bytes(damage)
    assert run(source, tmp_path) == 0


def test_other_rules_of_the_check_invalidate_the_index(source, tmp_path, monkeypatch):
    run(source, tmp_path)
    monkeypatch.setattr(image_index.PIL, "__version__", "another")
    assert run(source, tmp_path) == 0
