"""COCO fields as exporters write them that keep no types: they are read as meant, or quarantined with the reason."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_source import CocoFolder, box, parameters, record
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask

from components.datasets.sources import coco_dir
from components.stages import prepare
from yolo_core.progress import silent


@pytest.fixture
def source(tmp_path) -> CocoFolder:
    return CocoFolder(tmp_path / "source")


def prepared(source: CocoFolder, tmp_path: Path) -> tuple[dict, dict]:
    """(manifest, training annotations) after preparing."""
    options = ["prepare.source=coco-dir", f"prepare.location={source.save()}", "prepare.max_bad_fraction=0.5"]
    prepare.run(parameters(*options), out=tmp_path / "out")
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    return manifest, json.loads((tmp_path / "out/annotations/instances_train.json").read_text())


@pytest.mark.parametrize("value", [0, False, 0.0, "0", "false", "False", None, ""])
def test_iscrowd_that_means_no(source, tmp_path, value):
    for annotation in source.train["annotations"]:
        annotation["iscrowd"] = value
    manifest, document = prepared(source, tmp_path)
    assert [annotation["iscrowd"] for annotation in document["annotations"]] == [0, 0, 0, 0]
    assert manifest["quarantine"] == []


@pytest.mark.parametrize("value", [1, True, 1.0, "1", "true", "TRUE"])
def test_iscrowd_that_means_yes(source, tmp_path, value):
    source.train["annotations"][0]["iscrowd"] = value
    manifest, document = prepared(source, tmp_path)
    assert [annotation["iscrowd"] for annotation in document["annotations"]] == [1, 0, 0, 0]
    assert manifest["splits"]["train"]["crowd_boxes"] == 1


@pytest.mark.parametrize("value", [2, -1, 0.5, float("nan"), "no", "maybe", [0], {"is": 0}])
def test_iscrowd_that_means_nothing_known(source, tmp_path, value):
    source.train["annotations"].append(box(50, 1, iscrowd=value))
    manifest, document = prepared(source, tmp_path)
    reason = f"iscrowd {value!r} is neither 0 nor 1"
    assert manifest["quarantine"] == [{"split": "train", "kind": "box", "item": "annotation 50", "reason": reason}]
    assert len(document["annotations"]) == 4


def spellings(number: int) -> st.SearchStrategy[object]:
    return st.sampled_from([number, float(number), str(number), f" {number} "])


@given(st.data(), st.lists(st.tuples(*[st.integers(0, 40)] * 2, *[st.integers(1, 20)] * 2), min_size=1, max_size=4))
def test_numbers_in_any_spelling_are_the_same_boxes(tmp_path_factory, data: st.DataObject, boxes: list):
    """Ids as 3, 3.0 or "3"; boxes also as 3.5 or "3.5", or as a whole in quotes; sizes and areas likewise."""
    source = CocoFolder(tmp_path_factory.mktemp("spelled"))
    as_read = data.draw(st.lists(st.sampled_from([json.dumps, list]), min_size=len(boxes), max_size=len(boxes)))
    for image in source.train["images"]:
        image |= {key: data.draw(spellings(image[key])) for key in ("id", "width", "height")}
    source.train["categories"] = [
        {"id": data.draw(spellings(number)), "name": name} for number, name in ((0, "cat"), (7, "dog"))
    ]
    source.documents["val"]["categories"] = [{"id": 0, "name": "cat"}, {"id": 7, "name": "dog"}]
    source.documents["val"]["annotations"] = []
    source.train["annotations"] = [
        box(
            number,
            data.draw(spellings(1 + number % 4)),
            write([data.draw(spellings(value)) for value in xywh]),
            category_id=data.draw(spellings(7 * (number % 2))),
            area=data.draw(spellings(xywh[2] * xywh[3])),
        )
        for number, (xywh, write) in enumerate(zip(boxes, as_read, strict=True), 1)
    ]
    raw = coco_dir.read(source.save(), silent)
    assert [category["id"] for category in raw.categories] == [0, 7]
    train = raw.splits["train"]
    assert [(image.id, image.size_px) for image in train.images] == [(number, (64, 48)) for number in (1, 2, 3, 4)]
    assert [(one.image_id, one.category_id, one.xywh, one.area) for one in train.boxes] == [
        (1 + number % 4, 7 * (number % 2), list(xywh), xywh[2] * xywh[3]) for number, xywh in enumerate(boxes, 1)
    ]
    assert train.quarantined == []


@pytest.mark.parametrize("value", [True, "03", "1e1", "", [1], {"$oid": "1"}, 1.5])
def test_what_is_no_id_belongs_to_no_image(source, tmp_path, value):
    source.train["annotations"].append(box(50, value))
    manifest, _ = prepared(source, tmp_path)
    assert [entry["reason"] for entry in manifest["quarantine"]] == [f"unknown image id {value!r}"]


def test_images_with_texts_as_ids_get_numbers(source, tmp_path):
    source.train["images"] = [record(name, f"{number}.jpg") for number, name in enumerate(["07", "b", 1, "a"], 1)]
    source.train["annotations"] = [box(1, "b"), box(2, "a"), box(3, 1), box(4, "07"), box(5, 7), box(6, "c")]
    manifest, document = prepared(source, tmp_path)
    # The file holds 1 and 7, so the texts are 2, 3 and 4, by their order among the images.
    assert [(image["id"], image["file_name"]) for image in document["images"]] == [
        (2, "1.jpg"),
        (3, "2.jpg"),
        (1, "3.jpg"),
        (4, "4.jpg"),
    ]
    assert [annotation["image_id"] for annotation in document["annotations"]] == [3, 4, 1, 2]
    assert [entry["reason"] for entry in manifest["quarantine"]] == ["unknown image id 7", "unknown image id 'c'"]


def test_image_ids_of_more_than_64_bits_get_numbers(source, tmp_path):
    digests = [2**63, 2**64 - 1, 2**100]
    for image, digest in zip(source.train["images"], digests, strict=False):
        image["id"] = digest
    source.train["annotations"] = [box(1, 2**64 - 1), box(2, 4), box(3, 2**63 + 1)]
    manifest, document = prepared(source, tmp_path)
    assert [image["id"] for image in document["images"]] == [1, 2, 3, 4]
    assert [annotation["image_id"] for annotation in document["annotations"]] == [2, 4]
    assert [entry["reason"] for entry in manifest["quarantine"]] == [f"unknown image id {2**63 + 1}"]


L_SHAPE = np.zeros((48, 64), np.uint8)
L_SHAPE[5:30, 10:14] = L_SHAPE[26:30, 10:40] = 1  # x 10 to 39, y 5 to 29: 30 x 25 px
RUNS = mask.encode(np.asfortranarray(L_SHAPE))["counts"].decode()
PIXELS = L_SHAPE.flatten(order="F")
EDGES = [0, *(np.flatnonzero(np.diff(PIXELS)) + 1).tolist(), PIXELS.size]
POLYGONS = [[10, 5, 14, 5, 14, 30, 10, 30], [10, 26, 40, 26, 40, 30]]


@pytest.mark.parametrize(
    "segmentation",
    [
        POLYGONS,
        [10, 5, 40, 30, 10, 30],
        {"size": [48, 64], "counts": RUNS},
        {"size": [48, 64], "counts": [after - before for before, after in pairwise(EDGES)]},
    ],
    ids=["polygons", "one polygon", "runs as a text", "runs"],
)
@pytest.mark.parametrize("missing", [None, [], [0, 0, 0, 0], "no key"])
def test_an_annotation_without_a_box_takes_that_of_its_segmentation(source, tmp_path, segmentation, missing):
    annotation = box(50, 1, missing, segmentation=segmentation)
    if missing == "no key":
        del annotation["bbox"]
    source.train["annotations"].append(annotation)
    manifest, document = prepared(source, tmp_path)
    assert manifest["quarantine"] == []
    assert document["annotations"][-1]["bbox"] == [10, 5, 30, 25]


@pytest.mark.parametrize(
    "segmentation",
    [
        [],
        [[10, 5, 14, 5]],
        [[10, 5, 14, 5, 7]],
        [[10, 5, 14, 5, "x", 7]],
        [POLYGONS[0], None],
        {"size": [48, 64], "counts": [3000, 100]},
        {"size": [48, 64], "counts": [9]},
        {"size": [48, 64], "counts": RUNS + "o"},
        {"size": [48], "counts": RUNS},
        {"size": [48, 64]},
        "polygon",
    ],
    ids=str,
)
def test_a_segmentation_that_is_none_gives_no_box(source, tmp_path, segmentation: Any):
    source.train["annotations"].append(box(50, 1, None, segmentation=segmentation))
    manifest, _ = prepared(source, tmp_path)
    assert [entry["reason"] for entry in manifest["quarantine"]] == ["box None is not four numbers"]


@given(st.integers(1, 30), st.integers(1, 30), st.data())
def test_the_box_of_a_mask_is_that_of_its_pixels(tmp_path_factory, height: int, width: int, data: st.DataObject):
    flat = data.draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    pixels = np.array(flat, np.uint8).reshape(height, width)
    source = CocoFolder(tmp_path_factory.mktemp("mask"))
    runs = mask.encode(np.asfortranarray(pixels))["counts"].decode()
    source.train["annotations"] = [box(1, 1, None, segmentation={"size": [height, width], "counts": runs})]
    (read,) = coco_dir.read(source.save(), silent).splits["train"].boxes
    rows, columns = np.nonzero(pixels)
    if not rows.size:
        assert read.xywh is None
        return
    left, top = int(columns.min()), int(rows.min())
    assert read.xywh == [left, top, int(columns.max()) - left + 1, int(rows.max()) - top + 1]


@pytest.mark.parametrize("area", [None, "", "big", True, -4, 0, "nan"])
def test_an_area_that_is_none_is_that_of_the_box(source, tmp_path, area):
    source.train["annotations"].append(box(50, 1, [0, 0, 40, 40], area=area))
    _, document = prepared(source, tmp_path)
    assert document["annotations"][-1]["area"] == 1600
