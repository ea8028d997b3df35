"""The difference of two datasets, counted from manifests by hand and from prepared folders."""

from pathlib import Path
from typing import Any

import pytest
from coco_source import CocoFolder, box, encoded, parameters, pixels

from components.datasets.difference import DatasetDiff, compare
from components.files import read_json
from components.params import RetrainParams
from components.retraining.decision import decide
from components.stages import prepare

SETTINGS = RetrainParams(
    min_recall=0.98,
    fine_tune_from=0.1,
    class_shift=0.2,
    size_shift=0.2,
    scratch_from=0.5,
    fine_tune_epochs=0.3,
    price_per_hour=0,
)
SAME = DatasetDiff(6, 6, 0, 0, 0, 0.0, (), (), 0.0, 0.0)


def manifest(source: CocoFolder, folder: Path) -> dict[str, Any]:
    """Of the current source, prepared into a new folder."""
    out = folder / f"prepared{len(list(folder.glob('prepared*')))}"
    prepare.run(parameters("prepare.source=coco-dir", f"prepare.location={source.save()}"), out=out)
    return read_json(out / "manifest.json")


@pytest.fixture
def source(tmp_path: Path) -> CocoFolder:
    return CocoFolder(tmp_path / "source")  # 4 training and 2 validation images, one box of 20 px each, all dogs


def test_equal_data_have_no_difference(source: CocoFolder, tmp_path: Path):
    assert compare(manifest(source, tmp_path), manifest(source, tmp_path)) == SAME


def test_a_new_image(source: CocoFolder, tmp_path: Path):
    before = manifest(source, tmp_path)
    source.add_image("9.jpg", encoded(pixels(seed=9)), (0, 0, 20, 40))
    diff = compare(before, manifest(source, tmp_path))
    assert (diff.images_before, diff.images_after, diff.added, diff.removed, diff.relabelled) == (6, 7, 1, 0, 0)
    assert diff.fraction == 1 / 7
    # heights: 6 of 6 boxes in 16..31 px before; now 6 of 7 there and 1 of 7 in 32..63 px
    assert diff.size_shift == pytest.approx(1 / 7)
    assert diff.class_shift == 0  # all seven are dogs


def test_a_removed_and_a_changed_image(source: CocoFolder, tmp_path: Path):
    before = manifest(source, tmp_path)
    source.train["images"].pop()
    source.train["annotations"].pop()
    source.put("1.jpg", encoded(pixels(seed=100)))
    diff = compare(before, manifest(source, tmp_path))
    assert (diff.added, diff.removed) == (1, 2)  # other pixels under an old name: one gone, one new
    assert diff.fraction == 3 / 7  # of six old images and the new one


def test_a_renamed_image_is_the_same(source: CocoFolder, tmp_path: Path):
    before = manifest(source, tmp_path)
    (source.root / "images/train/1.jpg").rename(source.root / "images/train/other.jpg")
    source.train["images"][0]["file_name"] = "other.jpg"
    assert not compare(before, manifest(source, tmp_path)).anything


def test_a_box_of_another_class(source: CocoFolder, tmp_path: Path):
    before = manifest(source, tmp_path)
    source.train["annotations"][0]["category_id"] = 7
    diff = compare(before, manifest(source, tmp_path))
    assert (diff.relabelled, diff.fraction) == (1, 1 / 6)
    assert diff.class_shift == pytest.approx(1 / 6)  # dogs 6/6 -> 5/6, cats 0 -> 1/6: half of 1/6 + 1/6


def test_the_order_of_boxes_does_not_matter(source: CocoFolder, tmp_path: Path):
    source.train["annotations"].append(box(50, 1, (0, 0, 8, 8)))
    before = manifest(source, tmp_path)
    source.train["annotations"].reverse()
    assert not compare(before, manifest(source, tmp_path)).anything


def test_a_new_class(source: CocoFolder, tmp_path: Path):
    before = manifest(source, tmp_path)
    for document in source.documents.values():
        document["categories"].append({"id": 9, "name": "bird"})
    diff = compare(before, manifest(source, tmp_path))
    assert (diff.classes_added, diff.classes_removed) == (("bird",), ())
    assert decide(diff, 1.0, SETTINGS) == ("scratch", "different classes: +bird")


@pytest.mark.parametrize(
    ("changes", "recall", "action"),
    [
        ({}, 0.5, "unchanged"),  # nothing changed: the anchors are as good as they were
        ({"added": 1, "fraction": 0.0999}, 1.0, "evaluate"),
        ({"added": 1, "fraction": 0.1}, 1.0, "fine-tune"),
        ({"added": 1, "fraction": 0.4999}, 1.0, "fine-tune"),
        ({"added": 1, "fraction": 0.5}, 1.0, "scratch"),
        ({"added": 1, "fraction": 0.01, "class_shift": 0.2}, 1.0, "fine-tune"),
        ({"added": 1, "fraction": 0.01, "size_shift": 0.2}, 1.0, "fine-tune"),
        ({"added": 1, "fraction": 0.01}, 0.9799, "scratch"),
        ({"removed": 1, "fraction": 0.01}, 0.98, "evaluate"),
        ({"classes_removed": ("dog",)}, 1.0, "scratch"),
    ],
)
def test_thresholds(changes: dict[str, Any], recall: float, action: str):
    assert decide(DatasetDiff(**{**vars(SAME), **changes}), recall, SETTINGS)[0] == action
