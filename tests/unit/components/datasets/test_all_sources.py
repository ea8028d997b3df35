"""Several sources as one dataset, and renamed classes."""

import json
from pathlib import Path

import pytest
from coco_source import CocoFolder, encoded, parameters, pixels
from yolo_folder import YoloFolder

from components.datasets import all_sources
from components.stages import prepare
from yolo_core.errors import UserError


def prepared(out: Path, *overrides: str) -> tuple[dict, dict[str, list]]:
    """The manifest, and the training boxes as (class, box) by image."""
    prepare.run(parameters("prepare.source=auto", *overrides), out=out)
    document = json.loads((out / "annotations/instances_train.json").read_text())
    names = {category["id"]: category["name"] for category in document["categories"]}
    files = {image["id"]: image["file_name"] for image in document["images"]}
    boxes: dict[str, list] = {name: [] for name in files.values()}
    for one in document["annotations"]:
        boxes[files[one["image_id"]]].append((names[one["category_id"]], one["bbox"]))
    return json.loads((out / "manifest.json").read_text()), boxes


def test_classes_are_renamed_merged_and_left_out(tmp_path: Path) -> None:
    """cat and dog in each image; a dog becomes a pet, cats are left out; then both become pets."""
    folder = YoloFolder(tmp_path / "yolo")
    for split in ("train", "val"):
        for name in "ab":
            folder.write(f"labels/{split}/{name}.txt", b"0 0.5 0.5 0.2 0.4\n1 0.2 0.5 0.2 0.4\n")
    here = f"prepare.location={folder.root}"
    _, boxes = prepared(tmp_path / "one", here, "prepare.classes={dog: pet, cat: null}")
    assert boxes == {name: [("pet", [10.0, 15.0, 20.0, 20.0])] for name in ("a.jpg", "b.jpg")}
    manifest, boxes = prepared(tmp_path / "both", here, "prepare.classes={dog: pet, cat: pet}")
    assert [category["name"] for category in manifest["categories"]] == ["pet"]
    assert boxes["a.jpg"] == [("pet", [40.0, 15.0, 20.0, 20.0]), ("pet", [10.0, 15.0, 20.0, 20.0])]


def test_sources_of_other_layouts_join_by_the_names_of_their_classes(tmp_path: Path) -> None:
    """YOLO's fractions and COCO's pixels stay what they are; equal file names stay apart."""
    YoloFolder(tmp_path / "yolo")
    CocoFolder(tmp_path / "coco").save()  # of dogs
    more = f"prepare.more=[{{location: {tmp_path}/coco, classes: {{dog: wolf}}}}]"
    manifest, boxes = prepared(tmp_path / "out", f"prepare.location={tmp_path}/yolo", more)
    assert [category["name"] for category in manifest["categories"]] == ["cat", "dog", "wolf"]
    assert boxes == {
        **{f"yolo_{name}.jpg": [("cat", [40.0, 15.0, 20.0, 20.0])] for name in "ab"},
        **{f"coco_{number}.jpg": [("wolf", [10, 10, 20, 20])] for number in (1, 2, 3, 4)},
    }


def test_two_folders_of_one_name_stay_apart(tmp_path: Path) -> None:
    for folder in ("first", "second"):
        YoloFolder(tmp_path / folder / "photos")
    more = f"prepare.more=[{{location: {tmp_path}/second/photos}}]"
    _, boxes = prepared(tmp_path / "out", f"prepare.location={tmp_path}/first/photos", more)
    assert sorted(boxes) == ["photos-2_a.jpg", "photos-2_b.jpg", "photos_a.jpg", "photos_b.jpg"]


def test_an_unknown_class_is_one_line_with_near_ones(tmp_path: Path) -> None:
    YoloFolder(tmp_path / "yolo")
    with pytest.raises(UserError, match=r"no class 'catt' to rename; did you mean cat\?"):
        prepared(tmp_path / "out", f"prepare.location={tmp_path}/yolo", "prepare.classes={catt: pet}")


def test_a_change_in_any_source_changes_the_fingerprint(tmp_path: Path) -> None:
    YoloFolder(tmp_path / "one")
    other = YoloFolder(tmp_path / "two")
    params = parameters(
        "prepare.source=auto", f"prepare.location={tmp_path}/one", f"prepare.more=[{{location: {tmp_path}/two}}]"
    )
    before = all_sources.resolve(params).fingerprint
    assert before == all_sources.resolve(params).fingerprint
    other.write("images/train/c.jpg", encoded(pixels(100, 50, 7)))
    assert all_sources.resolve(params).fingerprint not in (None, before)
