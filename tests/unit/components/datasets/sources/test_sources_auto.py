"""Layouts are recognised by what lies there, and one line says what a folder was taken for."""

import json
import re
from pathlib import Path

import pytest
from coco_source import encoded, parameters, pixels

from components.datasets import sources
from components.stages import prepare
from yolo_core.errors import UserError

NAMES = ("a", "b")
RECORDS = {
    "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}],
    "annotations": [{"id": n, "image_id": n, "category_id": 1, "bbox": [0, 0, 10, 20]} for n in (1, 2)],
    "categories": [{"id": 1, "name": "cat"}],
}
XML = (
    "<annotation><source><database>Unknown</database></source><object><name>cat</name>"
    "<bndbox><xmin>0</xmin><ymin>0</ymin><xmax>10</xmax><ymax>20</ymax></bndbox></object></annotation>"
)
ROW = "0 0.05 0.2 0.1 0.4\n"  # of an image of 100x50 px: the same box


def put(path: Path, data: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())


def images(folder: Path) -> None:
    for number, name in enumerate(NAMES):
        put(folder / f"{name}.jpg", encoded(pixels(100, 50, number)))


def roboflow_coco(root: Path) -> None:
    images(root / "train")
    put(root / "train/_annotations.coco.json", json.dumps(RECORDS))


def cvat_coco(root: Path) -> None:
    images(root / "images/default")
    put(root / "annotations/instances_default.json", json.dumps(RECORDS))


def label_studio_coco(root: Path) -> None:
    images(root / "images")
    put(root / "result.json", json.dumps(RECORDS))


def cvat_yolo(root: Path) -> None:
    images(root / "obj_train_data")
    for name in NAMES:
        put(root / f"obj_train_data/{name}.txt", ROW)
    put(root / "train.txt", "data/obj_train_data/a.jpg\ndata/obj_train_data/b.jpg\n")
    put(root / "obj.names", "cat\n")
    put(root / "obj.data", "classes = 1\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n")


def label_studio_yolo(root: Path) -> None:
    images(root / "images")
    for name in NAMES:
        put(root / f"labels/{name}.txt", ROW)
    put(root / "classes.txt", "cat\n")


def voc(root: Path) -> None:
    images(root / "JPEGImages")
    for name in NAMES:
        put(root / f"Annotations/{name}.xml", XML)


def xml_beside_images(root: Path) -> None:
    images(root)
    for name in NAMES:
        put(root / f"{name}.xml", XML)


LAYOUTS = {
    roboflow_coco: "COCO as Roboflow exports it (*/_annotations.coco.json)",
    cvat_coco: "COCO (annotations/instances_*.json)",
    label_studio_coco: "COCO as Label Studio exports it (result.json)",
    cvat_yolo: "YOLO (obj.data, obj.names)",
    label_studio_yolo: "YOLO (classes.txt)",
    voc: "Pascal VOC (*.xml Annotations)",
    xml_beside_images: "Pascal VOC (*.xml beside the images)",
}


def prepared(root: Path, out: Path) -> dict:
    options = parameters("prepare.source=auto", f"prepare.location={root}", "prepare.val_fraction=0.5")
    prepare.run(options, out=out)
    boxes = [
        annotation["bbox"]
        for split in ("train", "val")
        for annotation in json.loads((out / f"annotations/instances_{split}.json").read_text())["annotations"]
    ]
    assert boxes == [[0, 0, 10, 20]] * 2
    return json.loads((out / "manifest.json").read_text())


@pytest.mark.parametrize("write", LAYOUTS, ids=lambda write: write.__name__)
def test_each_layout_is_recognised_and_gives_the_same_boxes(write, tmp_path, capsys):
    root = tmp_path / "source"
    write(root)
    manifest = prepared(root, tmp_path / "out")
    assert [category["name"] for category in manifest["categories"]] == ["cat"]
    line = f"prepare: {root}: read as {LAYOUTS[write]}; val_fraction 0.5: 1 of 2 images by content are for validation"
    assert line in capsys.readouterr().err.splitlines()


@pytest.mark.parametrize("write", LAYOUTS, ids=lambda write: write.__name__)
def test_any_new_file_changes_the_fingerprint(write, tmp_path):
    root = tmp_path / "source"
    write(root)
    params = parameters("prepare.source=auto", f"prepare.location={root}")
    source = sources.module("auto")
    before = source.resolve(params).fingerprint
    assert before is not None
    assert source.resolve(params).fingerprint == before
    named = next(path for path in sorted(root.rglob("*")) if path.suffix in (".json", ".xml", ".txt"))
    put(named, named.read_bytes() + b"\n")
    assert source.resolve(params).fingerprint != before


def test_the_only_folder_of_an_unpacked_archive_is_entered(tmp_path, capsys):
    voc(tmp_path / "source/VOCdevkit/VOC2007")
    put(tmp_path / "source/__MACOSX/._VOCdevkit", b"")
    prepared(tmp_path / "source", tmp_path / "out")
    assert "read as Pascal VOC" in capsys.readouterr().err


def test_of_two_layouts_the_line_says_which_and_why(tmp_path, capsys):
    """Labels that were converted lie beside those that they were made from."""
    label_studio_yolo(tmp_path / "source")
    voc(tmp_path / "source")
    prepared(tmp_path / "source", tmp_path / "out")
    expected = (
        "read as YOLO (classes.txt), which is preferred to what voc-dir would read there (prepare.source chooses);"
    )
    assert expected in capsys.readouterr().err


def test_an_unknown_folder_is_refused_with_what_was_looked_for(tmp_path):
    put(tmp_path / "source/photo.jpg", encoded(pixels()))
    with pytest.raises(UserError) as refusal:
        prepared(tmp_path / "source", tmp_path / "out")
    text = str(refusal.value)
    assert "\n" not in text
    assert text.startswith(f"{tmp_path / 'source'}: unknown layout; looked for annotations/instances_SPLIT.json (COCO")
    for name in ("_annotations.coco.json", "result.json", "data.yaml", "obj.data", "classes.txt", "Annotations/*.xml"):
        assert name in text


@pytest.mark.parametrize(
    ("name", "message"),
    [("export.zip", "is an archive; unpack it"), ("nowhere", "no such folder")],
)
def test_a_location_that_is_no_folder_is_named(tmp_path, name, message):
    put(tmp_path / "export.zip", b"PK")
    with pytest.raises(UserError, match=re.escape(message)):
        prepared(tmp_path / name, tmp_path / "out")
    with pytest.raises(UserError, match=r"prepare.location: not set"):
        prepare.run(parameters("prepare.source=auto"), out=tmp_path / "out")


def test_a_data_yaml_is_a_location(tmp_path):
    images(tmp_path / "images")
    for name in NAMES:
        put(tmp_path / f"labels/{name}.txt", ROW)
    put(tmp_path / "mine.yaml", "test: [images]\nnames: [cat]\n")
    prepared(tmp_path / "mine.yaml", tmp_path / "out")
