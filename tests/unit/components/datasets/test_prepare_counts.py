"""What `prepare` says of the labels: its counts, and one line where nearly all are of one kind."""

import json
from pathlib import Path

import numpy as np
import pytest
from coco_source import CocoFolder, box, encoded, parameters, pixels
from PIL import Image

from components.stages import prepare


@pytest.fixture
def source(tmp_path) -> CocoFolder:
    return CocoFolder(tmp_path / "source")


def said(source: CocoFolder, tmp_path: Path, capsys: pytest.CaptureFixture) -> tuple[dict, list[str]]:
    """The stage's result, and the lines that it printed about the labels."""
    params = parameters("prepare.source=coco-dir", f"prepare.location={source.save()}")
    result = prepare.run(params, out=tmp_path / "out")
    lines = capsys.readouterr().err.splitlines()
    return result, [line for line in lines if " read as " not in line]


def set_boxes(source: CocoFolder, *boxes: list[float], **more: object) -> None:
    """One box for each of the four training images."""
    source.train["annotations"] = [box(number, number, xywh, **more) for number, xywh in enumerate(boxes, 1)]


def test_every_kind_is_counted(source, tmp_path, capsys):
    source.train["annotations"] = [
        *(box(number, 1, [number, 10, 20, 20]) for number in range(10, 20)),
        box(2, 1, [60, 10, 20, 20]),  # 60 + 20 > 64
        box(3, 2, [10, 10, 20, 0.5]),
        box(4, 2, [0, 0, 30, 30], iscrowd=1),
        box(5, 3, [0, 0, 30, 30], iscrowd=1),
    ]
    result, lines = said(source, tmp_path, capsys)
    assert lines == [
        "prepare: train: 4 images, 1 of them background (no labels); 12 boxes, 2 crowd boxes (not trained on), "
        "1 clipped, 1 below a pixel",
        "prepare: val: 2 images, 0 of them background (no labels); 2 boxes, 0 crowd boxes (not trained on), "
        "0 clipped, 0 below a pixel",
    ]
    assert (result["train_boxes"], result["train_crowd_boxes"], result["val_boxes"]) == (12, 2, 2)
    split = json.loads((tmp_path / "out/manifest.json").read_text())["splits"]["train"]
    assert (split["boxes"], split["crowd_boxes"], split["clipped_boxes"], split["boxes_below_a_pixel"]) == (14, 2, 1, 1)


def test_corners_given_as_sizes(source, tmp_path, capsys):
    set_boxes(source, *[[40, 30, 60, 45]] * 4)  # 40 + 60 > 64: all leave the image
    _, lines = said(source, tmp_path, capsys)
    assert lines[2:] == [
        "prepare: warning: boxes clipped at the edge: 4 of 4 in train; are they x1 y1 x2 y2?",
    ]


def test_corners_of_which_some_fit(source, tmp_path, capsys):
    # 5 + 20 and 6 + 21 fit into 64x48, 40 + 60 does not; all grow from the first pair of numbers to the second
    set_boxes(source, [5, 5, 20, 20], [6, 6, 21, 21], [5, 5, 20, 20], [40, 30, 60, 45])
    _, lines = said(source, tmp_path, capsys)
    assert lines[2:] == [
        "prepare: warning: boxes clipped at the edge: 1 of 4 in train; are they x1 y1 x2 y2?",
    ]


def test_fractions_given_as_pixels(source, tmp_path, capsys):
    set_boxes(source, *[[0.4, 0.5, 0.25, 0.3]] * 4)
    _, lines = said(source, tmp_path, capsys)
    assert lines[2:] == ["prepare: warning: boxes smaller than a pixel: 4 of 4 in train; are these fractions?"]


def test_nothing_but_crowds(source, tmp_path, capsys):
    set_boxes(source, *[[10, 10, 20, 20]] * 4, iscrowd=1)
    _, lines = said(source, tmp_path, capsys)
    assert lines[2:] == [
        "prepare: warning: crowd boxes, which are not trained on: 4 of 4 in train; "
        "did you mean to set iscrowd (VOC: difficult)? CVAT sets it for every mask",
    ]


def test_many_crowds_are_as_cvat_exports_masks(source, tmp_path, capsys):
    source.train["annotations"] = [box(number, number, iscrowd=int(number > 2)) for number in range(1, 5)]
    _, lines = said(source, tmp_path, capsys)
    assert lines[2:] == [
        "prepare: warning: crowd boxes, which are not trained on: 2 of 4 in train; "
        "did you mean to set iscrowd (VOC: difficult)? CVAT sets it for every mask",
    ]


def test_nothing_but_background(source, tmp_path, capsys):
    for document in source.documents.values():
        document["annotations"] = []
    _, lines = said(source, tmp_path, capsys)
    files = [source.root / "annotations" / f"instances_{split}.json" for split in ("train", "val")]
    assert lines[2:] == [
        "prepare: warning: images without labels: 4 of 4 in train, 2 of 2 in val; "
        f"labels were looked for in {files[0]} and {files[1]}"
    ]


@pytest.mark.parametrize(("clipped", "warned"), [(17, False), (18, True)])
def test_nearly_all_are_nine_of_ten(source, tmp_path, capsys, clipped, warned):
    # x 62..66 leaves the 64 px; 4 < 62, so these are no corners
    boxes = [[62, 10, 4, 4]] * clipped + [[20, 10, 4, 4]] * (20 - clipped)
    source.train["annotations"] = [box(number, 1 + number % 4, xywh) for number, xywh in enumerate(boxes, 1)]
    _, lines = said(source, tmp_path, capsys)
    assert any(f"{clipped} of 20 in train; are they" in line for line in lines) is warned


def test_large_objects_in_the_middle_are_no_corners(source, tmp_path, capsys):
    set_boxes(source, *[[5, 4, 50, 40]] * 4)
    _, lines = said(source, tmp_path, capsys)
    assert len(lines) == 2


def test_sixteen_bit_images_that_come_out_black(source, tmp_path, capsys):
    for split, count in (("train", 4), ("val", 2)):
        for number in range(1, count + 1):
            thermal = 3000 + pixels(seed=number + len(split))[..., 0].astype(
                np.uint16
            )  # 3000 to 3255: 11 and 12 of 255
            source.put(f"{number}.jpg", encoded(Image.fromarray(thermal), "PNG"), split)
    _, lines = said(source, tmp_path, capsys)
    assert lines[2:] == [
        "prepare: warning: 16-bit images without contrast in 8 bits: 4 of 4 in train, 2 of 2 in val; scale them first"
    ]


def test_one_image_that_is_left_unrotated(source, tmp_path, capsys):
    turned = Image.Exif()
    turned[0x0112] = 6  # seen 48x64, recorded 64x48 as it is stored
    source.put("1.jpg", encoded(pixels(), exif=turned))
    _, lines = said(source, tmp_path, capsys)
    assert lines[2:] == [
        "prepare: warning: images left without their EXIF rotation: 1 of 4 in train; the recorded size "
        "ignores EXIF rotation, so boxes are read in the unrotated image"
    ]


def test_turned_images_whose_labels_record_no_size(tmp_path, capsys):
    turned = Image.Exif()
    turned[0x0112] = 6
    for split in ("train", "val"):
        for name, options in (("a", {"exif": turned}), ("b", {})):
            path = tmp_path / "source/images" / split / f"{name}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(pixels(seed=len(split)), quality=80 + ord(name) - 97, **options))
            path.with_suffix(".txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "source/classes.txt").write_text("cat\n")
    options = ["prepare.source=yolo-dir", f"prepare.location={tmp_path / 'source'}"]
    prepare.run(parameters(*options), out=tmp_path / "out")
    assert capsys.readouterr().err.splitlines()[-1] == (
        "prepare: warning: images turned by their EXIF rotation: 1 of 2 in train, 1 of 2 in val; their labels record "
        "no size, so boxes are read in the rotated image, as viewers show it"
    )


def test_class_names_that_are_nearly_the_same(source, tmp_path, capsys):
    names = ["Traffic Light", "cat", "traffic_light", "Cat", "catfish"]
    for document in source.documents.values():
        document["categories"] = [{"id": 3 + number, "name": name} for number, name in enumerate(names)]
    _, lines = said(source, tmp_path, capsys)
    assert lines[2:] == [
        "prepare: warning: class names that are nearly the same: 'Traffic Light' and 'traffic_light', 'cat' and 'Cat'; "
        "if they mean one class, merge them"
    ]


def test_validation_images_that_are_training_images(source, tmp_path, capsys):
    source.put("1.jpg", (source.root / "images/train/3.jpg").read_bytes(), "val")
    _, lines = said(source, tmp_path, capsys)
    assert lines[2:] == [
        "prepare: warning: validation images that are also training images: 1 of 2; AP will be too high"
    ]


def test_corners_in_a_yolo_file(tmp_path, capsys):
    for split in ("train", "val"):
        for folder in ("images", "labels"):
            (tmp_path / "source" / folder / split).mkdir(parents=True)
        (tmp_path / "source/images" / split / "a.jpg").write_bytes(encoded(pixels(seed=len(split))))
        # x1 y1 x2 y2; read as centre and size: x from -0.1 to 0.7
        (tmp_path / "source/labels" / split / "a.txt").write_text("0 0.3 0.3 0.8 0.8\n")
    (tmp_path / "source/classes.txt").write_text("cat\n")
    options = ["prepare.source=yolo-dir", f"prepare.location={tmp_path / 'source'}"]
    prepare.run(parameters(*options), out=tmp_path / "out")
    assert capsys.readouterr().err.splitlines()[-1] == (
        "prepare: warning: boxes clipped at the edge: 1 of 1 in train, 1 of 1 in val; are they x1 y1 x2 y2?"
    )
