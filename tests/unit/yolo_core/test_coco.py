"""Annotations to labels, decoding, and the cache of decoded images."""

import json
import pickle
import struct

import cv2
import numpy as np
import pytest
from coco_folder import picture, write_split

from components.datasets.prepared import load_prepared
from yolo_core.data.coco import CacheSettings, load_image, load_split
from yolo_core.errors import UserError


def annotation(category: int, bbox: list[float], image: int = 100, crowd: int = 0) -> dict:
    return {"image_id": image, "category_id": category, "bbox": bbox, "iscrowd": crowd}


def test_labels_are_clipped_without_crowds_in_class_order(tmp_path):
    folder = write_split(
        tmp_path,
        [(64, 48), (32, 32)],
        annotations=[
            annotation(12, [10, 20, 30, 10]),  # inside: 10, 20 .. 40, 30
            annotation(3, [5, 5, 10, 10], crowd=1),
            annotation(7, [-4, 40, 10, 20]),  # sticks out: 0, 40 .. 6, 48
            annotation(3, [64, 10, 5, 5]),  # outside: nothing is left
            annotation(3, [10, 10, 0, 5]),  # no width
        ],
    )
    data = load_split(folder, "train")
    assert (data.category_ids, data.classes) == ([3, 7, 12], ["three", "seven", "twelve"])
    np.testing.assert_array_equal(data.labels[0], [[2, 10, 20, 40, 30], [1, 0, 40, 6, 48]])
    assert data.labels[1].shape == (0, 5)
    assert all(part.dtype == np.float32 for part in data.labels)
    assert data.annotation_path == folder / "annotations" / "instances_train.json"
    assert [(r.id, r.width, r.height) for r in data.images] == [(100, 64, 48), (101, 32, 32)]


def test_annotations_in_any_order_reach_their_image(tmp_path):
    given = [annotation(3, [k, k, 5, 5], image=100 + k % 3) for k in range(9)]
    data = load_split(write_split(tmp_path, [(40, 40)] * 3, annotations=given), "train")
    assert [part[:, 1].tolist() for part in data.labels] == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]


def test_subset_keeps_images_with_their_labels(tmp_path):
    data = load_split(write_split(tmp_path, [(40, 30), (50, 30), (60, 30)]), "train")
    assert [r.width for r in data.subset(2).images] == [40, 50]
    assert len(data.subset(9)) == 3
    chosen = data.subset([2, 0])
    assert [r.width for r in chosen.images] == [60, 40]
    assert chosen.labels[0] is data.labels[2]
    assert chosen.image(0, 60).shape == (30, 60, 3)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "no such annotation file"),
        ("{", "cannot be read"),
        ('{"images": []}', "not a COCO instances file"),
        ("[]", "not a COCO instances file"),
        ({"image_id": 100, "category_id": 3, "bbox": [0, 0, 1]}, "not a COCO instances file"),
        ({"image_id": 5, "category_id": 3, "bbox": [0, 0, 1, 1]}, "unknown image_id 5"),
        ({"image_id": 100, "category_id": 9, "bbox": [0, 0, 1, 1]}, "unknown category_id 9"),
    ],
)
def test_a_bad_annotation_file_is_one_line_with_the_fix(tmp_path, content, problem):
    folder = write_split(tmp_path, [(8, 8)], annotations=[content] if isinstance(content, dict) else [])
    path = folder / "annotations" / "instances_train.json"
    if content is None:
        path.unlink()
    elif isinstance(content, str):
        path.write_text(content)
    with pytest.raises(UserError) as caught:
        load_prepared(folder, "train")
    message = str(caught.value)
    assert problem in message
    assert str(path) in message
    assert "scaled-yolov4 prepare" in message
    assert "\n" not in message


def test_images_are_rgb_and_upright(tmp_path):
    red_then_blue = np.zeros((16, 32, 3), np.uint8)  # red on the left half, blue on the right; OpenCV writes BGR
    red_then_blue[:, :16, 2] = red_then_blue[:, 16:, 0] = 255
    jpeg = cv2.imencode(".jpg", red_then_blue)[1].tobytes()
    # EXIF orientation 6: the camera was turned, a quarter turn clockwise makes it upright.
    tiff = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
    exif = b"Exif\0\0" + tiff
    path = tmp_path / "turned.jpg"
    path.write_bytes(jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:])
    image = load_image(path)
    assert image.shape == (32, 16, 3)
    assert image.dtype == np.uint8
    assert image[4, 8, 0] > 200 > 50 > image[4, 8, 2]  # red above
    assert image[28, 8, 2] > 200 > 50 > image[28, 8, 0]  # blue below


@pytest.mark.parametrize(
    "pixels",
    [np.full((4, 6), 90, np.uint8), np.full((4, 6, 4), 90, np.uint8), np.full((4, 6, 3), 90 * 256, np.uint16)],
    ids=["grey", "alpha", "16 bit"],
)
def test_other_pixel_formats_become_8_bit_rgb(tmp_path, pixels):
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    np.testing.assert_array_equal(load_image(tmp_path / "a.png"), np.full((4, 6, 3), 90, np.uint8))


def test_unreadable_images_are_named(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"not a picture")
    with pytest.raises(UserError, match=r"broken\.jpg: cannot be decoded"):
        load_image(tmp_path / "broken.jpg")
    with pytest.raises(UserError, match=r"absent\.jpg: no such image"):
        load_image(tmp_path / "absent.jpg")


def test_an_image_of_another_size_than_annotated_is_refused(tmp_path):
    folder = write_split(tmp_path, [(40, 30)])
    cv2.imwrite(str(folder / "images" / "train" / "0.png"), np.zeros((40, 30, 3), np.uint8))
    with pytest.raises(UserError, match=r"0\.png: is 30x40 px, annotated as 40x30"):
        load_split(folder, "train").image(0, 32)


@pytest.mark.parametrize(("size", "shape"), [(40, (30, 40, 3)), (80, (60, 80, 3)), (20, (15, 20, 3))])
def test_image_has_its_longer_side_resized(tmp_path, size, shape):
    data = load_split(write_split(tmp_path, [(40, 30)]), "train")
    assert data.image(0, size).shape == shape
    np.testing.assert_array_equal(data.load(0), picture(40, 30, 0))


def test_cached_images_equal_decoded_ones_and_outlive_their_files(tmp_path):
    folder = write_split(tmp_path, [(40, 30), (30, 50), (64, 64)])
    held, decoded = load_split(folder, "train"), load_split(folder, "train", cache=CacheSettings("none"))
    expected = [decoded.image(i, 32).copy() for i in range(3)]
    for i in range(3):
        np.testing.assert_array_equal(held.image(i, 32), expected[i])
    for path in (folder / "images" / "train").iterdir():
        path.unlink()
    for i in range(3):
        np.testing.assert_array_equal(held.image(i, 32), expected[i])
    with pytest.raises(UserError):
        decoded.image(0, 32)
    with pytest.raises(UserError):
        pickle.loads(pickle.dumps(held)).image(0, 32)  # copies start empty


def test_cached_images_cannot_be_written_to(tmp_path):
    data = load_split(write_split(tmp_path, [(32, 32)]), "train")
    data.image(0, 32)
    with pytest.raises(ValueError, match="read-only"):
        data.image(0, 32)[0] = 0


def test_many_images_and_boxes_load_in_linear_time(tmp_path):
    """5,000 images, 35,000 boxes: a second; anything quadratic would take minutes."""
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 640, "height": 480} for i in range(5_000)]
    annotations = [{"image_id": k // 7, "category_id": 1, "bbox": [k % 600, 1, 10, 10]} for k in range(35_000)]
    (tmp_path / "annotations").mkdir()
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "one"}]}
    (tmp_path / "annotations" / "instances_val.json").write_text(json.dumps(content))
    data = load_split(tmp_path, "val")
    assert len(data) == 5_000
    assert data.labels[4_999][:, 1].tolist() == [(7 * 4_999 + k) % 600 for k in range(7)]
