"""Rows and class names of YOLO data sets, through `prepare`: what is certain is read, what is not is refused."""

import pytest
from yolo_folder import YoloFolder

from yolo_core.errors import UserError

BOX = [40.0, 15.0, 20.0, 20.0]  # px of 0.5 0.5 0.2 0.4 on 100x50
NAMES = "names: [cat, dog]\n"


@pytest.fixture
def source(tmp_path) -> YoloFolder:
    return YoloFolder(tmp_path / "source")


@pytest.mark.parametrize(
    ("shape", "keypoints"),
    [
        ("[2, 2]", "0.45 0.4 0.55 0.6"),
        ("[1, 3]", "0.45 0.4 2"),  # 2: labelled and visible
        ("[2, 3]", "0.45 0.4 2 0.0 0.0 0"),  # 11 values, as of a polygon of 5 points
    ],
)
def test_keypoints_leave_the_box_as_it_is(source, tmp_path, shape, keypoints):
    source.write("data.yaml", f"{NAMES}kpt_shape: {shape}\n".encode())
    source.write("labels/train/a.txt", f"0 0.5 0.5 0.2 0.4 {keypoints}\n1 0.5 0.5 0.4 0.4\n".encode())
    manifest, document = source.prepared(tmp_path / "out")
    assert [record["bbox"] for record in document["annotations"]] == [BOX, [30.0, 15.0, 40.0, 20.0], BOX]
    assert manifest["quarantine"] == []


def test_rows_that_disagree_with_the_keypoints_are_quarantined(source, tmp_path):
    source.write("data.yaml", f"{NAMES}kpt_shape: [2, 2]\n".encode())
    source.write("labels/train/a.txt", b"0 0.5 0.5 0.2 0.4 0.45 0.4 2 0.55 0.6 2\n0 0.5 0.5 0.2 0.4\n")
    manifest, _ = source.prepared(tmp_path / "out")
    (entry,) = manifest["quarantine"]
    assert entry["item"] == "labels/train/a.txt:1"
    assert entry["reason"] == "11 values; kpt_shape in data.yaml needs 9, or 5 for a box"


@pytest.mark.parametrize("shape", ["[17]", "[17, 4]", "17", "[0, 2]", "[x, 2]", "[[17, 3]]"])
def test_a_shape_of_keypoints_that_is_none(source, tmp_path, shape):
    source.write("data.yaml", f"{NAMES}kpt_shape: {shape}\n".encode())
    with pytest.raises(UserError, match=r"data\.yaml: kpt_shape: .* must be \[number of keypoints, 2 or 3\]"):
        source.prepared(tmp_path / "out")


@pytest.mark.parametrize(
    "extra",
    [
        "0.45 0.4 0.55 0.6",  # two keypoints
        "0.9 1",  # a confidence and the first track
        "0.45 0.4 1 0.55 0.6 1",  # two visible keypoints
    ],
)
def test_an_image_whose_rows_may_be_boxes_or_polygons_is_quarantined(source, tmp_path, extra):
    source.write("labels/train/a.txt", f"0 0.5 0.5 0.2 0.4 {extra}\n".encode())
    manifest, document = source.prepared(tmp_path / "out")
    (entry,) = manifest["quarantine"]
    assert (entry["kind"], entry["item"]) == ("image", "labels/train/a.txt:1")
    assert entry["reason"].startswith(f"{5 + len(extra.split())} values may be a polygon or a box with keypoints")
    assert [image["file_name"] for image in document["images"]] == ["b.jpg"]  # not a background image


@pytest.mark.parametrize("extra", ["0.9 17", "0.9", "0.45 0.4 2 0.55 0.6 2", "0.45 0.4 2"])
def test_rows_that_are_no_polygon_are_quarantined(source, tmp_path, extra):
    source.write("labels/train/a.txt", f"1 0.5 0.5 0.4 0.4\n0 0.5 0.5 0.2 0.4 {extra}\n".encode())
    manifest, document = source.prepared(tmp_path / "out")
    (entry,) = manifest["quarantine"]
    assert entry["item"] == "labels/train/a.txt:2"
    assert "values are neither a box (5) nor a polygon" in entry["reason"]
    assert len(document["annotations"]) == 2


TRIANGLE = "0 0.5 0.5 0.6 0.5 0.55 0.6"  # as a box: centre (0.5, 0.5), 0.6 wide, 0.5 high, and a point in it


@pytest.mark.parametrize(
    ("others", "yaml"),
    [
        ("0 0.5 0.5 0.6 0.5 0.6 0.6 0.5 0.62\n", ""),  # rows of different lengths
        ("", "task: segment\n"),
        ("", "task: obb\n"),
    ],
)
def test_polygons_that_would_do_as_boxes(source, tmp_path, others, yaml):
    source.write("data.yaml", f"{NAMES}{yaml}".encode())
    source.write("labels/train/a.txt", f"{TRIANGLE}\n".encode())
    source.write("labels/val/a.txt", others.encode())
    manifest, document = source.prepared(tmp_path / "out")
    assert manifest["quarantine"] == []
    # x 50 to 60 px of 100, y 25 to 30 px of 50
    assert document["annotations"][0]["bbox"] == pytest.approx([50, 25, 10, 5])


@pytest.mark.parametrize(
    ("row", "bbox"),
    [
        ("0 0.5 0.4 0.6 0.5 0.5 0.6 0.4 0.5", [40, 20, 20, 10]),  # a turned rectangle: four corners
        ("0 0.5 0.4 0.6 0.5 0.5 0.6 0.45 0.55 0.5 0.4", [45, 20, 15, 10]),  # the last point is the first
    ],
)
def test_outlines_are_polygons(source, tmp_path, row, bbox):
    source.write("labels/train/a.txt", f"{row}\n".encode())
    manifest, document = source.prepared(tmp_path / "out")
    assert manifest["quarantine"] == []
    assert document["annotations"][0]["bbox"] == pytest.approx(bbox)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"0,0.5,0.5,0.2,0.4\n", "no readable row; the first, in line 1: expected class cx cy w h, found 1 values"),
        (b"\n0 0.5 0.5 0.2 0.4 0.9\n0 0.5 0.5 0.2 0.4 1\n", "no readable row; the first, in line 2: 6 values are"),
        (b"0 50 25 20 20\n", "no readable row; the first, in line 1: coordinates are not fractions of the image"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n", "unreadable label file: a pointer of Git LFS"),
    ],
)
def test_an_image_without_a_readable_row_is_no_background(source, tmp_path, text, reason):
    source.write("labels/train/a.txt", text)
    manifest, document = source.prepared(tmp_path / "out")
    (entry,) = manifest["quarantine"]
    assert (entry["kind"], entry["item"]) == ("image", "labels/train/a.txt")
    assert entry["reason"].startswith(reason)
    assert [image["file_name"] for image in document["images"]] == ["b.jpg"]


def test_classes_that_are_a_pointer(source, tmp_path):
    source.write("classes.txt", b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n")
    with pytest.raises(UserError, match=r"classes\.txt: a pointer of Git LFS; run git lfs pull"):
        source.prepared(tmp_path / "out")


def test_a_blank_line_keeps_its_number(source, tmp_path):
    source.write("classes.txt", b"\xef\xbb\xbfcat \r\n\r\ndog\r\nbird\r\n\r\n")
    source.write("labels/train/a.txt", b"2 0.5 0.5 0.2 0.4\n1 0.5 0.5 0.4 0.4\n")
    manifest, document = source.prepared(tmp_path / "out")
    assert document["categories"] == [{"id": 0, "name": "cat"}, {"id": 2, "name": "dog"}, {"id": 3, "name": "bird"}]
    assert manifest["splits"]["train"]["classes"] == {"cat": 1, "dog": 1, "bird": 0}
    assert [entry["reason"] for entry in manifest["quarantine"]] == ["unknown category id 1"]


def test_classes_written_by_powershell(source, tmp_path):
    source.write("classes.txt", "cat\r\nhünd\r\n".encode("utf-16"))
    _, document = source.prepared(tmp_path / "out")
    assert [category["name"] for category in document["categories"]] == ["cat", "hünd"]


def test_classes_in_another_encoding(source, tmp_path):
    source.write("classes.txt", "cat\nhünd\n".encode("cp1252"))
    with pytest.raises(UserError, match=r"classes\.txt: cannot be read .*save it as UTF-8"):
        source.prepared(tmp_path / "out")


WORDS = ["no", "yes", "on", "010", "1:30", "null", "~", "1e3", "2024-01-01", "0x10", "True", "1_000"]


@pytest.mark.parametrize("form", ["flow", "list", "mapping"])
def test_names_stay_as_written(source, tmp_path, form):
    rows = {
        "flow": f"names: [{', '.join(WORDS)}]\n",
        "list": "names:\n" + "".join(f"- {word}\n" for word in WORDS),
        "mapping": "names:\n" + "".join(f"  {index}: {word}\n" for index, word in enumerate(WORDS)),
    }
    source.write("data.yaml", f"nc: {len(WORDS)}\n{rows[form]}".encode())
    _, document = source.prepared(tmp_path / "out")
    assert [category["name"] for category in document["categories"]] == WORDS


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("classes.txt", "crane\ndog\ncrane\n", "class name 'crane' is given twice, to classes 0 and 2"),
        ("data.yaml", "names: [crane, crane]\n", "class name 'crane' is given twice, to classes 0 and 1"),
        ("data.yaml", "nc: 3\nnames: [cat, dog]\n", r"data\.yaml: nc: 3, but names: has 2 entries"),
        ("data.yaml", "nc: two\nnames: [cat, dog]\n", r"data\.yaml: nc: two, but names:"),
        ("data.yaml", "names: {0: cat, 00: dog}\n", r"data\.yaml: names: entry 0 is given twice"),
        ("data.yaml", "names: [cat, '']\n", r"names: entry 1: '': expected a whole number from 0, and a name"),
        ("data.yaml", "names: [cat, {a: b}]\n", r"names: entry 1: .* expected a whole number from 0, and a name"),
    ],
)
def test_names_that_cannot_be_meant(source, tmp_path, name, text, message):
    source.write(name, text.encode())
    with pytest.raises(UserError, match=message):
        source.prepared(tmp_path / "out")
