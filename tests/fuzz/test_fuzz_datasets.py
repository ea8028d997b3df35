"""Hostile annotations, labels and images: `prepare` refuses the folder, or what it accepts can be trained on."""

import io
import json
import os
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hostile import SHARES, damaged_bytes, damaged_json, damaged_tree, fuzz, outcome
from hypothesis import strategies as st
from PIL import Image

from components.parameter_file import load
from components.stages import prepare
from yolo_core.data.coco import load_split
from yolo_core.errors import UserError

PARAMS = Path(__file__).parents[2] / "params.yaml"
WIDTH, HEIGHT = 24, 16
COCO = {
    "info": {"year": 2020},
    "licenses": [{"id": 1, "name": "any"}],
    "images": [
        {"id": 1, "file_name": "a.png", "width": WIDTH, "height": HEIGHT, "license": 1},
        {"id": 2, "file_name": "b.png", "width": WIDTH, "height": HEIGHT},
    ],
    "annotations": [
        {
            "id": 1,
            "image_id": 1,
            "category_id": 1,
            "bbox": [2, 3, 8, 9.5],
            "area": 76,
            "iscrowd": 0,
            "segmentation": [],
        },
        {"id": 2, "image_id": 2, "category_id": 4, "bbox": [0, 0, 24, 16], "area": 384.0, "iscrowd": 1},
    ],
    "categories": [{"id": 1, "name": "one"}, {"id": 4, "name": "two"}],
}


def test_the_shares_add_up():
    assert sum(SHARES.values()) == 100


@cache
def image(kind: str = "PNG", mode: str = "RGB", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.radial_gradient("L").resize((WIDTH, HEIGHT)).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def coco_folder(folder: Path, annotations: bytes, first_image: bytes) -> Path:
    """A COCO layout with this training split and a valid validation split."""
    source = folder / "source"
    (source / "annotations").mkdir(parents=True)
    (source / "annotations/instances_train.json").write_bytes(annotations)
    (source / "annotations/instances_val.json").write_text(json.dumps(COCO))
    for split in ("train", "val"):
        (source / split).mkdir()
        (source / split / "a.png").write_bytes(first_image if split == "train" else image())
        (source / split / "b.png").write_bytes(image())
    return source


def prepared(kind: str, source: Path, folder: Path) -> dict | UserError:
    """Prepare it however much of it is bad, and read the result as training does."""
    overrides = [f"prepare.source={kind}", f"prepare.location={source}", "prepare.max_bad_fraction=1"]
    params = load(PARAMS, overrides)

    def act() -> dict:
        prepare.run(params, out=folder / "out", work=folder / "work")
        for split in ("train", "val"):
            dataset = load_split(folder / "out", split)
            for index in range(len(dataset)):
                dataset.load(index)
        return json.loads((folder / "out/manifest.json").read_text())

    return outcome(act, folder)


@fuzz("annotations", damaged_json(COCO))
def test_annotations(case: bytes, folder: Path) -> None:
    """Arbitrary content of an instances file."""
    prepared("coco-dir", coco_folder(folder, case, image()), folder)


LABELS = b"0 0.5 0.5 0.25 0.25\n1 0.1 0.1 0.2 0.2 0.3 0.1 0.2 0.05\n\n1 0.5 0.5 1 1\n"
DATA_YAML = {"path": ".", "train": "images/train", "val": ["images/val"], "names": {0: "one", 1: "two"}}
LINES = st.lists(
    st.sampled_from(["0", "1", "-1", "0.5", "nan", "inf", "1e999", "9" * 400, "x", "1_0", "٣"]), max_size=9
)


@fuzz(
    "labels",
    st.tuples(
        damaged_bytes(LABELS) | st.lists(LINES, max_size=4).map(lambda ls: "\n".join(map(" ".join, ls)).encode()),
        damaged_tree(DATA_YAML).map(lambda tree: yaml.safe_dump(tree).encode())
        | damaged_bytes(yaml.safe_dump(DATA_YAML).encode()),
    ),
)
def test_labels(case: tuple[bytes, bytes], folder: Path) -> None:
    """Arbitrary content of a label file and of the dataset's yaml."""
    source = folder / "source"
    for split in ("train", "val"):
        (source / "images" / split).mkdir(parents=True)
        (source / "labels" / split).mkdir(parents=True)
        (source / "images" / split / "a.png").write_bytes(image())
    (source / "labels/train/a.txt").write_bytes(case[0])
    (source / "data.yaml").write_bytes(case[1])
    prepared("yolo-dir", source, folder)


VOC = f"""<?xml version="1.0" encoding="utf-8"?>
<annotation><folder>x</folder><filename>a.png</filename><source><database>Unknown</database></source>
<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>
<object><name>one</name><difficult>1</difficult>
<bndbox><xmin>2</xmin><ymin>3.5</ymin><xmax>1e1</xmax><ymax>12</ymax></bndbox></object>
<object><name>two</name><bndbox><xmin>0</xmin><ymin>0</ymin><xmax>24</xmax><ymax>16</ymax></bndbox></object></annotation>
"""


@fuzz("xml", damaged_bytes(VOC.encode()))
def test_voc_annotations(case: bytes, folder: Path) -> None:
    """Whatever stands in an annotation file of Pascal VOC."""
    source = folder / "source"
    for split in ("train", "val"):
        (source / split).mkdir(parents=True)
        (source / split / "a.png").write_bytes(image())
        (source / split / "a.xml").write_bytes(VOC.encode())
        (source / split / "b.png").write_bytes(image())
        (source / split / "b.xml").write_bytes(case if split == "train" else VOC.encode())
    prepared("voc-dir", source, folder)


@fuzz("obj.data", damaged_bytes(b"classes = 2\nnames = data/names\ntrain = data/train.txt\nvalid = data/valid.txt\n"))
def test_obj_data(case: bytes, folder: Path) -> None:
    """Whatever stands in Darknet's description of a data set."""
    source = folder / "source"
    for split in ("train", "valid"):
        (source / f"obj_{split}_data").mkdir(parents=True)
        (source / f"obj_{split}_data/a.png").write_bytes(image())
        (source / f"obj_{split}_data/a.txt").write_bytes(LABELS)
        (source / f"{split}.txt").write_text(f"data/obj_{split}_data/a.png\n")
    (source / "names").write_text("one\ntwo\n")
    (source / "obj.data").write_bytes(case)
    prepared("auto", source, folder)


TURNED = b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"  # its one tag: orientation 6
IMAGES = [
    image(), image("PNG", "P"), image("PNG", "I;16"), image("PNG", "RGBA"), image("PNG", "1"),
    image("JPEG"), image("JPEG", "L"), image("JPEG", "CMYK"), image("JPEG", progressive=True),
    image("GIF"), image("BMP"), image("TIFF"), image("TIFF", "I;16"), image("TIFF", compression="tiff_lzw"),
    image("WEBP"), image("PPM"), image("JPEG", exif=TURNED), image("PNG", exif=TURNED),
]  # fmt: skip


@fuzz("images", st.sampled_from(IMAGES).flatmap(damaged_bytes))
def test_images(case: bytes, folder: Path) -> None:
    """Whatever an image file holds: it is quarantined, or training can decode it at the recorded size."""
    with warnings.catch_warnings(action="ignore"):
        manifest = prepared("coco-dir", coco_folder(folder, json.dumps(COCO).encode(), case), folder)
    assert isinstance(manifest, dict)
    refused = [item for item in manifest["quarantine"] if item["kind"] == "image"]
    assert manifest["splits"]["train"]["images"] + len(refused) == 2
    assert all(item["item"] == "a.png" and item["reason"].strip() for item in refused)


@pytest.mark.filterwarnings("ignore:Image size")
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
def test_images_of_100_megapixels_are_refused(kind: str, tmp_path: Path):
    """Files of a few kilobytes to a megabyte that would take 300 MB or more when decoded."""
    buffer = io.BytesIO()
    Image.new("L" if kind == "JPEG" else "1", (10_000, 10_000)).save(buffer, kind, compression="group4")
    manifest = prepared("coco-dir", coco_folder(tmp_path, json.dumps(COCO).encode(), buffer.getvalue()), tmp_path)
    assert isinstance(manifest, dict)
    reasons = [item["reason"] for item in manifest["quarantine"] if item["kind"] == "image"]
    assert reasons == ["too large: 10000x10000 px; at most 50 megapixels"]


@pytest.mark.parametrize("kind", ["pipe", "device", "loop"])
def test_images_that_are_not_files_are_refused(kind: str, tmp_path: Path):
    """Reading a pipe blocks forever, reading /dev/zero never ends."""
    source = coco_folder(tmp_path, json.dumps(COCO).encode(), b"")
    path = source / "train/a.png"
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero" if kind == "device" else path)
    manifest = prepared("coco-dir", source, tmp_path)
    assert isinstance(manifest, dict)
    assert [item["item"] for item in manifest["quarantine"] if item["kind"] == "image"] == ["a.png"]
