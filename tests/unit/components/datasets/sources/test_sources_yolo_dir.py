"""YOLO labels and layouts, parsed and through `prepare`."""

import pytest
from coco_source import encoded, pixels
from hypothesis import given
from hypothesis import strategies as st
from yolo_folder import YoloFolder

from components.datasets.sources.yolo_labels import parse
from yolo_core.errors import UserError

fraction = st.floats(0, 1, width=32)


@pytest.fixture
def source(tmp_path) -> YoloFolder:
    return YoloFolder(tmp_path / "source")


def test_boxes_become_pixels(source, tmp_path):
    source.write("labels/train/a.txt", b"1 0.5 0.5 0.2 0.4\n")
    manifest, document = source.prepared(tmp_path / "out")
    # 100x50 px: centre (50, 25), 20 wide, 20 high
    assert document["annotations"][0] == {
        "id": 1, "image_id": 1, "category_id": 1, "bbox": [40.0, 15.0, 20.0, 20.0], "area": 400.0, "iscrowd": 0,
    }  # fmt: skip
    assert document["categories"] == [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}]
    assert document["images"][0] == {"id": 1, "file_name": "a.jpg", "width": 100, "height": 50}
    assert manifest["quarantine"] == []


def test_polygons_become_their_box(source, tmp_path):
    source.write("labels/train/a.txt", b"0 0.1 0.2 0.5 0.4 0.3 0.8\n")
    _, document = source.prepared(tmp_path / "out")
    assert document["annotations"][0]["bbox"] == [10, 10, 40, 30]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"0 0.5 0.5 0.2", "expected class cx cy w h, found 4 values"),
        (b"0 0.5 0.5 0.2 0.2 0.9", "6 values are neither a box (5) nor a polygon (class and at least 3 points)"),
        (b"0 0.5 0.5 0.2 wide", "not a number in '0 0.5 0.5 0.2 wide'"),
        (b"0.5 0.5 0.5 0.2 0.2", "class '0.5' is not a whole number from 0"),
        (b"-1 0.5 0.5 0.2 0.2", "class '-1' is not a whole number from 0"),
        (b"nan 0.5 0.5 0.2 0.2", "class 'nan' is not a whole number from 0"),
        (b"0 50 25 20 20", "coordinates are not fractions of the image (0 to 1); are they pixels?"),
        (b"0 0.5 0.5 0.2 0.4", "duplicate line"),
        (b"2 0.5 0.5 0.2 0.2", "unknown category id 2"),
        (b"0 nan 0.5 0.2 0.2", "holds NaN or infinity"),
        (b"0 0.5 0.5 -0.2 0.2", "has a negative size"),
        (b"0 0.5 0.5 0 0.2", "has zero size"),
        (b"0 1.2 0.5 0.2 0.2", "lies outside the image (100x50)"),
    ],
)
def test_a_bad_line_is_quarantined_with_file_and_line(source, tmp_path, line, reason):
    source.write("labels/train/a.txt", b"0 0.5 0.5 0.2 0.4\n\n" + line + b"\n")
    manifest, document = source.prepared(tmp_path / "out")
    (entry,) = manifest["quarantine"]
    assert entry["item"].startswith("labels/train/a.txt:3")
    assert reason in entry["reason"]
    assert len(document["annotations"]) == 2  # the good line and b.txt's


def test_missing_and_broken_files(source, tmp_path):
    (source.root / "labels/train/a.txt").unlink()  # background
    source.write("labels/train/b.txt", b"\xff\xfe\x00")
    source.write("labels/train/gone.txt", b"0 0.5 0.5 0.2 0.4\n")
    source.write("images/val/a.jpg", b"")
    manifest, _ = source.prepared(tmp_path / "out")
    found = {(entry["kind"], entry["item"], entry["reason"].split(":")[0]) for entry in manifest["quarantine"]}
    assert found == {
        ("image", "labels/train/b.txt", "unreadable label file"),  # its boxes are unknown: no background image
        ("image", "labels/train/gone.txt", "missing file"),
        ("image", "a.jpg", "unreadable"),
    }
    assert manifest["splits"]["train"]["background_images"] == 1


def test_rotated_photographs_are_labelled_upright(source, tmp_path):
    from PIL import Image

    tags = Image.Exif()
    tags[0x0112] = 6  # stored 100x50, seen 50x100
    source.write("images/train/a.jpg", encoded(pixels(100, 50), exif=tags))
    _, document = source.prepared(tmp_path / "out")
    assert document["images"][0] == {"id": 1, "file_name": "a.jpg", "width": 50, "height": 100}
    assert document["annotations"][0]["bbox"] == [20, 30, 10, 40]


@pytest.mark.parametrize(
    "text",
    [
        "path: ../source\ntrain: images/train\nval: images/val\nnames: {0: cat, 1: dog}\n",
        "train: [images/train]\nval: images/val\nnames: [cat, dog]\nnc: 2\n",
        "train: ../images/train\nvalid: ../images/val\nnames: [cat, dog]\n",
        "train: train.txt\nval: val.txt\nnames: [cat, dog]\n",
        "names: [cat, dog]\n",
    ],
)
def test_dataset_yaml(source, tmp_path, text):
    (source.root / "classes.txt").unlink()
    for split in ("train", "val"):
        source.write(f"{split}.txt", f"./images/{split}/a.jpg\n./images/{split}/b.jpg\n".encode())
    source.write("data.yaml", text.encode())
    manifest, document = source.prepared(tmp_path / "folder")
    assert [image["file_name"].removeprefix("images_train_") for image in document["images"]] == ["a.jpg", "b.jpg"]
    assert manifest["splits"]["val"]["classes"] == {"cat": 2, "dog": 0}
    named, _ = source.prepared(tmp_path / "file", source.root / "data.yaml")
    assert named["sha256"] == manifest["sha256"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("data.yaml", "train: nowhere\nval: images/val\nnames: [a]\n", r"data.yaml: 'nowhere' not found; searched"),
        ("data.yaml", "train: images/train\nval: images/val\n", r"data.yaml: no class names"),
        ("data.yaml", "names: {x: cat}\n", r"data.yaml: names: entry 'x': 'cat': expected a whole number"),
        ("data.yaml", "names: [", r"data.yaml:1: not valid YAML"),
        ("data.yaml", "just words", r"data.yaml: expected keys such as train:"),
        ("classes.txt", "\n", r"classes.txt: no class names"),
    ],
)
def test_a_wrong_description_is_named(source, tmp_path, name, text, message):
    source.write(name, text.encode())
    with pytest.raises(UserError, match=message):
        source.prepared(tmp_path / "out")


def test_no_description_and_no_images(source, tmp_path):
    (source.root / "classes.txt").unlink()
    with pytest.raises(UserError, match=r"no class names; add classes.txt"):
        source.prepared(tmp_path / "out")
    source.write("classes.txt", b"cat\n")
    (source.root / "images/val").rename(source.root / "images/other")
    with pytest.raises(UserError, match=r"no validation split, only 2 images of one split \(not read: other\); add"):
        source.prepared(tmp_path / "out")
    with pytest.raises(UserError, match="no such folder or dataset yaml"):
        source.prepared(tmp_path / "out", tmp_path / "nowhere")


@given(st.integers(0, 99), fraction, fraction, fraction, fraction)
def test_a_written_box_is_read_back(index, cx, cy, w, h):
    (line,), bad = parse(f"  {index}\t{cx!r} {cy!r}  {w!r} {h!r} \r\n")
    x, y, got_w, got_h = line.xywh
    assert (line.class_index, line.number, bad) == (index, 1, [])
    assert (x + got_w / 2, y + got_h / 2, got_w, got_h) == pytest.approx((cx, cy, w, h), abs=1e-6)


@given(st.lists(st.tuples(fraction, fraction), min_size=3, max_size=20))
def test_a_polygon_is_inside_its_box_and_touches_all_sides(points):
    (line,), _ = parse("0 " + " ".join(f"{x!r} {y!r}" for x, y in points))
    x, y, w, h = line.xywh
    xs, ys = zip(*points, strict=True)
    assert (x, y) == (min(xs), min(ys))
    assert (x + w, y + h) == pytest.approx((max(xs), max(ys)))


@given(st.text())
def test_any_text_is_parsed_or_refused_line_by_line(text):
    lines, bad = parse(text)
    numbers = [line.number for line in lines] + [number for number, _ in bad]
    assert sorted(numbers) == [number for number, line in enumerate(text.split("\n"), 1) if line.strip()]
