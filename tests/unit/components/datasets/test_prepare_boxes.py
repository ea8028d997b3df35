"""Bad boxes and records: each is quarantined with its reason, and the rest is kept."""

import json
import math

import pytest
from coco_source import CocoFolder, box, encoded, parameters, pixels, record

from components.stages import prepare

NAN = float("nan")


@pytest.fixture
def source(tmp_path) -> CocoFolder:
    return CocoFolder(tmp_path / "source")


def prepared(source: CocoFolder, tmp_path) -> tuple[dict, dict]:
    """(manifest, training annotations) after preparing."""
    options = ["prepare.source=coco-dir", f"prepare.location={source.save()}", "prepare.max_bad_fraction=0.5"]
    prepare.run(parameters(*options), out=tmp_path / "out")
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    return manifest, json.loads((tmp_path / "out/annotations/instances_train.json").read_text())


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (box(50, 1, [NAN, 1, 2, 3]), "box [nan, 1, 2, 3] holds NaN or infinity"),
        (box(50, 1, [1, 1, math.inf, 3]), "box [1, 1, inf, 3] holds NaN or infinity"),
        (box(50, 1, [1, 1, 10**400, 3]), f"box [1, 1, 1{'0' * 72} holds NaN or infinity"),
        (box(50, 1, [9, 9, -4, 5]), "box [9, 9, -4, 5] has a negative size"),
        (box(50, 1, [9, 9, 0, 5]), "box [9, 9, 0, 5] has zero size"),
        (box(50, 1, [9, 9, 5, 0.0]), "box [9, 9, 5, 0] has zero size"),
        (box(50, 1, [64, 0, 5, 5]), "box [64, 0, 5, 5] lies outside the image (64x48)"),
        (box(50, 1, [-9, 0, 9, 5]), "box [-9, 0, 9, 5] lies outside the image (64x48)"),
        (box(50, 1, [1, 2, 3]), "box [1, 2, 3] is not four numbers"),
        (box(50, 1, None), "box None is not four numbers"),
        (box(50, 1, ["1 px", 2, 3, 4]), "box ['1 px', 2, 3, 4] is not four numbers"),
        (box(50, 1, [True, 2, 3, 4]), "box [True, 2, 3, 4] is not four numbers"),
        (box(50, 1, category_id=4), "unknown category id 4"),
        (box(50, 1, category_id=None), "unknown category id None"),
        (box(1, 1), "annotation 1 is given twice"),
    ],
)
def test_a_bad_box_is_quarantined_and_its_image_stays(source, tmp_path, bad, reason):
    source.train["annotations"].append(bad)
    manifest, document = prepared(source, tmp_path)
    image = f"{bad['image_id']}.jpg"
    item = f"annotation {bad['id']}, image {image}"
    assert manifest["quarantine"] == [{"split": "train", "kind": "box", "item": item, "reason": reason}]
    assert [annotation["id"] for annotation in document["annotations"]] == [1, 2, 3, 4]
    assert len(document["images"]) == 4


def test_an_image_without_any_of_its_boxes_is_no_background(source, tmp_path, capsys):
    """Image 1 loses its only two boxes, image 2 one of two, image 3 a box that it has already."""
    source.train["annotations"][0]["bbox"] = [9, 9, 0, 5]
    source.train["annotations"] += [box(50, 1, iscrowd="perhaps"), box(51, 2, category_id=4), box(3, 3)]
    source.put("1.jpg", encoded(pixels()[..., 0]))  # greyscale: a conversion that must not be counted either
    manifest, document = prepared(source, tmp_path)
    assert [image["id"] for image in document["images"]] == [2, 3, 4]
    assert not (tmp_path / "out/images/train/1.jpg").exists()
    assert {path.split("/")[-1] for path in manifest["files"]} >= {"2.jpg", "3.jpg", "4.jpg"}
    assert "images/train/1.jpg" not in manifest["files"]
    assert manifest["conversions"] == {}
    assert [item for item in manifest["quarantine"] if item["kind"] == "image"] == [
        {
            "split": "train",
            "kind": "image",
            "item": "1.jpg",
            "reason": "none of its boxes (2) can be used; the first is annotation 50: "
            "iscrowd 'perhaps' is neither 0 nor 1",
        }
    ]
    counted = manifest["splits"]["train"]
    assert (counted["images"], counted["background_images"]) == (3, 0)
    assert (counted["quarantined_images"], counted["quarantined_boxes"]) == (1, 4)
    assert counted["partly_labelled_images"] == 1
    line = "; quarantined: 1 images, 4 boxes; images used without some of their boxes: 1"
    assert line in capsys.readouterr().err


def test_a_refused_box_belongs_to_the_side_of_its_image(source, tmp_path):
    """Without a validation split; each image has one good and one bad box, but one image has only a bad one."""
    del source.documents["val"]
    source.train["annotations"] += [box(50 + number, number, [9, 9, 0, 5]) for number in range(1, 5)]
    del source.train["annotations"][2]
    options = ["prepare.source=coco-dir", f"prepare.location={source.save()}", "prepare.max_bad_fraction=0.6"]
    prepare.run(parameters(*options, "prepare.val_fraction=0.5"), out=tmp_path / "out")
    splits = json.loads((tmp_path / "out/manifest.json").read_text())["splits"].values()
    assert sum(split["images"] for split in splits) == 3
    assert all(split["images"] == split["partly_labelled_images"] == split["boxes"] for split in splits)


@pytest.mark.parametrize(
    ("bad", "item", "reason"),
    [
        (box(50, 77), "annotation 50", "unknown image id 77"),
        (box(50, [1]), "annotation 50", "unknown image id [1]"),
        ("nonsense", "nonsense", "not an annotation (instances_train.json)"),
    ],
)
def test_a_box_without_an_image_is_quarantined(source, tmp_path, bad, item, reason):
    source.train["annotations"].append(bad)
    manifest, _ = prepared(source, tmp_path)
    assert manifest["quarantine"] == [{"split": "train", "kind": "box", "item": item, "reason": reason}]


@pytest.mark.parametrize(
    ("bad", "item", "reason"),
    [
        (record(1, "1.jpg"), "1.jpg", "duplicate file name (image id 1)"),
        (record(9, "2.jpg"), "2.jpg", "duplicate file name (image id 9)"),
        (record([9], "9.jpg"), "9.jpg", "image id [9] is neither a whole number nor a text (instances_train.json)"),
        (record(None, "9.jpg"), "9.jpg", "image id None is neither a whole number nor a text (instances_train.json)"),
        (record(9, "../1.jpg"), "../1.jpg", "file name points outside the image folder (instances_train.json)"),
        (
            record(9, "/etc/hostname"),
            "/etc/hostname",
            "file name points outside the image folder (instances_train.json)",
        ),
        (record(9, "lone\ud800.jpg"), "lone\ud800.jpg", "file name that no file can have (instances_train.json)"),
        ({"id": 9}, "{'id': 9}", "image record without file_name (instances_train.json)"),
    ],
)
def test_a_bad_image_record_is_quarantined(source, tmp_path, bad, item, reason):
    source.train["images"].append(bad)
    manifest, document = prepared(source, tmp_path)
    (entry,) = manifest["quarantine"]
    assert (entry["split"], entry["kind"], entry["item"]) == ("train", "image", item)
    assert entry["reason"].startswith(reason)
    assert [image["id"] for image in document["images"]] == [1, 2, 3, 4]


def test_images_of_one_id_are_quarantined_with_their_boxes(source, tmp_path):
    source.train["images"].append(record(1, "5.jpg"))
    manifest, document = prepared(source, tmp_path)
    assert manifest["quarantine"] == [
        {"split": "train", "kind": "image", "item": name, "reason": "image id 1 is given to 2 images"}
        for name in ("1.jpg", "5.jpg")
    ]
    assert [annotation["image_id"] for annotation in document["annotations"]] == [2, 3, 4]
    assert manifest["splits"]["train"]["boxes_of_quarantined_images"] == 1


def test_of_two_records_of_a_file_the_one_with_boxes_is_kept(source, tmp_path):
    source.train["images"].insert(0, record(9, "2.jpg"))
    manifest, document = prepared(source, tmp_path)
    assert [(item["item"], item["reason"]) for item in manifest["quarantine"]] == [
        ("2.jpg", "duplicate file name (image id 9)")
    ]
    assert [image["id"] for image in document["images"]] == [1, 2, 3, 4]


def test_records_of_a_file_that_share_its_boxes_are_quarantined(source, tmp_path):
    """Each alone would have the boxes of the others as background."""
    source.train["images"].append(record(9, "2.jpg"))
    source.train["annotations"].append(box(50, 9, [1, 2, 3, 4]))
    manifest, document = prepared(source, tmp_path)
    reason = "its file has 2 image records with boxes of their own (ids 2, 9); merge them"
    assert [(item["item"], item["reason"]) for item in manifest["quarantine"]] == [("2.jpg", reason)] * 2
    assert [image["id"] for image in document["images"]] == [1, 3, 4]


@pytest.mark.parametrize(
    ("rotation", "expected"),
    [
        (90, [16, 12, 8, 20]),  # about the centre (20, 22): 20 x 8 becomes 8 x 20
        (45.0, [10.101, 12.101, 19.799, 19.799]),  # (20 + 8) / sqrt(2)
        ("330", [9.34, 13.536, 21.321, 16.928]),  # 20 cos 30 + 8 sin 30; 20 sin 30 + 8 cos 30
        (0.0, [10, 18, 20, 8]),
        (180, [10, 18, 20, 8]),
    ],
)
def test_the_box_around_one_that_cvat_has_turned(source, tmp_path, rotation, expected):
    attributes = {"occluded": False, "rotation": rotation}
    source.train["annotations"][0] |= {"bbox": [10, 18, 20, 8], "attributes": attributes, "segmentation": []}
    manifest, document = prepared(source, tmp_path)
    assert document["annotations"][0]["bbox"] == pytest.approx(expected, abs=1e-3)
    assert manifest["quarantine"] == []


@pytest.mark.parametrize("rotation", ["left", NAN, [90], True])
def test_a_rotation_that_is_no_number_is_not_guessed(source, tmp_path, rotation):
    source.train["annotations"].append(box(50, 1, attributes={"rotation": rotation}))
    manifest, _ = prepared(source, tmp_path)
    assert [(item["item"], item["reason"]) for item in manifest["quarantine"]] == [
        ("annotation 50", f"its rotation {rotation!r} is not a number")
    ]


def test_annotation_ids_that_start_again_in_each_image_become_unique(source, tmp_path):
    source.train["annotations"] = [box(number, image) for image in (1, 2, 3) for number in (1, 2)]
    for number, annotation in enumerate(source.train["annotations"]):
        annotation["bbox"] = [number, 10, 20, 20]
    manifest, document = prepared(source, tmp_path)
    assert manifest["quarantine"] == []
    assert [annotation["bbox"][0] for annotation in document["annotations"]] == [0, 1, 2, 3, 4, 5]
    assert [annotation["id"] for annotation in document["annotations"]] == [1, 2, 3, 4, 5, 6]


def test_boxes_of_a_quarantined_image_go_with_it(source, tmp_path):
    source.add_image("gone.jpg", None, [1, 2, 3, 4], [5, 6, 7, 8])
    manifest, document = prepared(source, tmp_path)
    assert [entry["kind"] for entry in manifest["quarantine"]] == ["image"]
    assert manifest["splits"]["train"]["boxes_of_quarantined_images"] == 2
    assert {annotation["image_id"] for annotation in document["annotations"]} == {1, 2, 3, 4}


def test_boxes_partly_outside_are_clipped_and_counted(source, tmp_path):
    source.train["annotations"] += [
        box(50, 1, [-10, 40, 20, 20], area=400.0),  # x -10..10, y 40..60 of 64x48 leaves 10x8
        box(51, 2, [60.5, 1, 3.501, 2]),  # 0.001 px over the edge: rounding
    ]
    manifest, document = prepared(source, tmp_path)
    clipped, rounded = document["annotations"][-2:]
    assert (clipped["bbox"], clipped["area"]) == ([0, 40, 10, 8], 80)
    assert rounded["bbox"] == [60.5, 1, 3.5, 2]
    assert manifest["splits"]["train"]["clipped_boxes"] == 1
    assert manifest["quarantine"] == []


def test_images_without_labels_stay_as_background(source, tmp_path):
    source.train["annotations"] = source.train["annotations"][:1]
    manifest, document = prepared(source, tmp_path)
    assert len(document["images"]) == 4
    assert manifest["splits"]["train"]["background_images"] == 3


def test_category_ids_keep_their_gaps_and_the_mapping_is_recorded(source, tmp_path):
    source.train["annotations"].append(box(50, 1, category_id=7))
    manifest, document = prepared(source, tmp_path)
    assert [category["id"] for category in document["categories"]] == [3, 7]
    assert [annotation["category_id"] for annotation in document["annotations"]] == [3, 3, 3, 3, 7]
    assert manifest["categories"] == [{"index": 0, "id": 3, "name": "dog"}, {"index": 1, "id": 7, "name": "cat"}]
    assert manifest["splits"]["train"]["classes"] == {"dog": 4, "cat": 1}


def test_annotation_ids_that_are_missing_or_zero_get_free_ones(source, tmp_path):
    source.train["annotations"] += [box(0, 1), box(None, 2), box("x", 3)]
    manifest, document = prepared(source, tmp_path)
    assert [annotation["id"] for annotation in document["annotations"]] == [1, 2, 3, 4, 5, 6, 7]
    assert manifest["quarantine"] == []


def test_crowds_are_kept_and_areas_given_stay(source, tmp_path):
    source.train["annotations"].append(box(50, 1, [0, 0, 40, 40], area=123.5, iscrowd=1))
    manifest, document = prepared(source, tmp_path)
    assert (document["annotations"][-1]["area"], document["annotations"][-1]["iscrowd"]) == (123.5, 1)
    assert document["annotations"][0]["area"] == 400  # 20 * 20, none was given
    assert manifest["splits"]["train"]["crowd_boxes"] == 1


def test_box_sizes_are_counted(source, tmp_path):
    source.train["annotations"] = [box(1, 1, [0, 0, 31, 33]), box(2, 2, [0, 0, 64, 48]), box(3, 3, [0, 0, 0.5, 2])]
    manifest, _ = prepared(source, tmp_path)
    # areas 1023 (small), 3072 (medium), 1 (small); widths 31 -> 16, 64 -> 64, 0.5 -> 1; heights 33, 48 -> 32, 2 -> 2
    assert manifest["splits"]["train"]["box_sizes"] == {
        "coco": {"small": 2, "medium": 1, "large": 0},
        "width_px": {"1": 1, "16": 1, "64": 1},
        "height_px": {"2": 1, "32": 2},
    }
