"""The embedded digits through `prepare`: complete, repeatable, disjoint, with all kinds of objects."""

import json

import cv2
import numpy as np
import pytest
from coco_source import content, parameters
from pycocotools.coco import COCO

from components.datasets.sources.digits import VAL_EVERY
from components.stages import prepare

SMALL = ["prepare.digits.train_images=60", "prepare.digits.val_images=12", "prepare.digits.image_size=320"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("digits") / "out"
    prepare.run(parameters(*SMALL), out=out)
    return out


def test_complete_coco_files(folder):
    for split, count in (("train", 60), ("val", 12)):
        document = json.loads((folder / f"annotations/instances_{split}.json").read_text())
        assert list(document) == ["info", "licenses", "images", "annotations", "categories"]
        assert len(document["images"]) == count
        assert [category["name"] for category in document["categories"]] == list("0123456789")
        assert set(document["annotations"][0]) == {"id", "image_id", "category_id", "bbox", "area", "iscrowd"}
        assert len({annotation["id"] for annotation in document["annotations"]}) == len(document["annotations"])
        for image in document["images"]:
            pixels = cv2.imread(str(folder / "images" / split / image["file_name"]))
            assert pixels.shape == (image["height"], image["width"], 3)
            assert max(pixels.shape) == 320
    assert len(COCO(str(folder / "annotations/instances_val.json")).getImgIds()) == 12


def test_sizes_classes_and_background(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    train = manifest["splits"]["train"]
    assert min(train["box_sizes"]["coco"].values()) > 20  # small, medium and large
    assert min(train["classes"].values()) > 5
    assert 1 <= train["background_images"] <= 12
    assert manifest["quarantine"] == []
    assert manifest["source"] == {"kind": "digits", "seed": 0, "train_images": 60, "val_images": 12, "image_size": 320}


def test_the_seed_decides_everything(folder, tmp_path):
    prepare.run(parameters(*SMALL), out=tmp_path / "same")
    assert content(tmp_path / "same") == content(folder)
    other = prepare.run(parameters(*SMALL, "seed=1"), out=tmp_path / "other")
    assert other["sha256"] != json.loads((folder / "manifest.json").read_text())["sha256"]


def test_more_images_leave_the_first_as_they_are(folder, tmp_path):
    prepare.run(parameters(*SMALL, "prepare.digits.train_images=61"), out=tmp_path / "more")
    name = "images/train/000060.jpg"
    assert (tmp_path / "more" / name).read_bytes() == (folder / name).read_bytes()


def test_train_and_val_show_different_handwriting():
    from sklearn.datasets import load_digits

    images = load_digits().images
    held_out = np.arange(len(images)) % VAL_EVERY == 0
    train = {image.tobytes() for image in images[~held_out]}
    assert not any(image.tobytes() in train for image in images[held_out])
