"""File names of the images of YOLO data sets in the prepared folder: joined, unique, not too long."""

import hashlib

import pytest
from coco_source import encoded, pixels
from PIL import Image
from yolo_folder import YoloFolder, boxes, names

ROW = b"0 0.5 0.5 0.2 0.4\n"
PICTURE = encoded(pixels(100, 50))


@pytest.fixture
def source(tmp_path) -> YoloFolder:
    return YoloFolder(tmp_path / "source")


def test_equal_names_in_several_folders(source, tmp_path):
    for path in ("cam1/images/0.jpg", "cam2/images/0.jpg", "cam1/images/1.jpg"):
        source.write(path, PICTURE)
        source.write(path.replace("images", "labels").replace("jpg", "txt"), ROW)
    source.write("data.yaml", b"train: [cam1/images, cam2/images]\nval: images/val\nnames: [cat]\n")
    manifest, document = source.prepared(tmp_path / "out", limit=0)
    first, second = "cam1/images/0.jpg", "cam2/images/0.jpg"
    assert boxes(document) == {f"0-{digest(first)}.jpg": 1, "1.jpg": 1, f"0-{digest(second)}.jpg": 1}
    moved = tmp_path / "moved"
    source.root.rename(moved)
    again, _ = source.prepared(tmp_path / "again", moved)
    assert again["sha256"] == manifest["sha256"]


def digest(path: str) -> str:
    return hashlib.sha256(path.encode()).hexdigest()[:8]


def test_joined_names_that_are_equal(source, tmp_path):
    for path in ("train/x/y_0", "train/x_y/0"):
        source.write(f"images/{path}.jpg", PICTURE)
        source.write(f"labels/{path}.txt", ROW)
    _, document = source.prepared(tmp_path / "out", limit=0)
    wanted = {f"x_y_0-{digest(f'images/train/{path}.jpg')}.jpg": 1 for path in ("x/y_0", "x_y/0")}
    assert boxes(document) == {"a.jpg": 1, "b.jpg": 1} | wanted


@pytest.mark.parametrize("ending", ["jpg", "bmp"])
def test_names_too_long_after_joining_are_shortened(source, tmp_path, ending):
    folder = "/".join(["ö" * 60] * 3)
    kind = {"jpg": "JPEG", "bmp": "BMP"}[ending]
    source.write(f"images/train/{folder}/c.{ending}", encoded(pixels(100, 50), kind))
    source.write(f"labels/train/{folder}/c.txt", ROW)
    _, document = source.prepared(tmp_path / "out", limit=0)
    assert list(boxes(document).values()) == [1, 1, 1]
    (long,) = set(names(document)) - {"a.jpg", "b.jpg"}
    assert f"_c-{digest(f'images/train/{folder}/c.{ending}')}.{ending}" in long
    assert len(long.encode()) <= 255


def test_a_name_that_leaves_no_room_for_another_ending(source, tmp_path):
    name = "x" * 251 + ".jpg"
    source.write(f"images/train/{name}", encoded(pixels(100, 50), "PNG"))  # becomes name.jpg.png
    manifest, document = source.prepared(tmp_path / "out")
    assert names(document) == ["a.jpg", "b.jpg"]
    assert [(e["item"], e["reason"]) for e in manifest["quarantine"]] == [(name, "file name too long")]


def test_names_that_get_another_ending(source, tmp_path):
    """c.bmp is written as a PNG, whose name would be that of the other image."""
    source.write("images/train/c.bmp", encoded(Image.new("RGB", (100, 50)), "BMP"))
    source.write("images/train/c.bmp.png", encoded(pixels(100, 50), "PNG"))
    for name in ("c", "c.bmp"):
        source.write(f"labels/train/{name}.txt", ROW)
    _, document = source.prepared(tmp_path / "out", limit=0)
    own = f"c-{digest('images/train/c.bmp')}.bmp.png"
    assert boxes(document) == {"a.jpg": 1, "b.jpg": 1, own: 1, "c.bmp.png": 1}
