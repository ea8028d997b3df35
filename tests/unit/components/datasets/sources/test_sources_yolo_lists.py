"""YOLO data sets whose splits are lists of image files, through `prepare`."""

import logging
from pathlib import Path

import pytest
from coco_source import encoded, pixels
from yolo_folder import YoloFolder, boxes

ROW = b"0 0.5 0.5 0.2 0.4\n"


class Listed(YoloFolder):
    """images/{0..9}.jpg and labels/{0..9}.txt, which lists split."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for number in range(10):
            self.write(f"images/{number}.jpg", encoded(pixels(100, 50, number)))
            self.write(f"labels/{number}.txt", ROW)
        self.lists([f"./images/{number}.jpg" for number in range(10)])
        self.write("data.yaml", b"train: autosplit_train.txt\nval: autosplit_val.txt\nnames: [cat]\n")

    def lists(self, lines: list[str]) -> None:
        self.write("autosplit_train.txt", "\n".join(lines[:8]).encode())
        self.write("autosplit_val.txt", "\r\n".join(lines[8:]).encode())


def test_lists_over_one_folder(tmp_path):
    manifest, document = Listed(tmp_path / "source").prepared(tmp_path / "out", limit=0)
    assert boxes(document) == {f"images_{number}.jpg": 1 for number in range(8)}
    assert manifest["splits"]["val"]["boxes"] == 2
    assert manifest["quarantine"] == []


def test_labels_that_no_list_names_are_counted_in_a_line(tmp_path, caplog):
    source = Listed(tmp_path / "source")
    source.write("autosplit_val.txt", b"./images/8.jpg\n")
    source.write("labels/gone.txt", ROW)
    with caplog.at_level(logging.WARNING):
        manifest, _ = source.prepared(tmp_path / "out")
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.endswith("labelled images that are in no list: 1, for example images/9.jpg")
    assert [entry["item"] for entry in manifest["quarantine"]] == ["labels/gone.txt"]


@pytest.mark.parametrize(
    "line", [r"images\{}.jpg", r".\images\{}.jpg", "ABSOLUTE/images/{}.jpg", "images/../images/{}.jpg"]
)
def test_paths_in_lists(tmp_path, line):
    source = Listed(tmp_path / "source")
    source.lists([line.format(number).replace("ABSOLUTE", str(source.root)) for number in range(10)])
    manifest, document = source.prepared(tmp_path / "out", limit=0)
    assert list(boxes(document).values()) == [1] * 8
    assert manifest["splits"]["val"]["boxes"] == 2


def test_lists_in_a_folder_of_their_own(tmp_path):
    """Their paths are relative to the data set's root."""
    source = Listed(tmp_path / "source")
    (source.root / "lists").mkdir()
    for split in ("train", "val"):
        (source.root / f"autosplit_{split}.txt").rename(source.root / f"lists/{split}.txt")
    source.write("data.yaml", b"train: lists\\train.txt\nval: [lists\\val.txt]\nnames: [cat]\n")
    manifest, _ = source.prepared(tmp_path / "out", limit=0)
    assert (manifest["splits"]["train"]["boxes"], manifest["splits"]["val"]["boxes"]) == (8, 2)


def test_odd_lines_of_a_list_are_refused_one_by_one(tmp_path):
    source = Listed(tmp_path / "source")
    odd = ["images", ".", "..", "/", "nul\0.jpg", "x" * 300 + ".jpg", "images/0.jpg/more.jpg"]
    source.write("autosplit_train.txt", "\n".join(["images/0.jpg", *odd]).encode())
    manifest, document = source.prepared(tmp_path / "out")
    assert list(boxes(document).values()) == [1]
    images = [entry for entry in manifest["quarantine"] if entry["kind"] == "image"]
    assert len(images) == len(odd)
