"""Pascal VOC as its development kit, CVAT, LabelImg, Label Studio and Roboflow write it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.sax.saxutils import escape

import cv2
import pytest
from coco_source import encoded, parameters, pixels
from hypothesis import given, settings
from hypothesis import strategies as st

from components.datasets.raw import RawDataset
from components.datasets.sources import voc_dir
from components.datasets.sources.voc_xml import BadXml, parse
from components.stages import prepare
from yolo_core.errors import UserError
from yolo_core.progress import silent

CLASSES = ["cat", "traffic light"]


@dataclass(frozen=True)
class Thing:
    """An object: its class and the edges of its box, px from 0."""

    name: str
    edges: tuple[float, float, float, float]
    difficult: int = 0


Subsets = dict[str, dict[str, list[Thing]]]
"""Objects by image name without suffix, by subset."""


def put(path: Path, text: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


def document(name: str, things: list[Thing], source: str, shift: tuple[int, int], size: str = "", tag: str = "") -> str:
    """shift: added to left and top, and to right and bottom."""
    objects = ""
    for thing in things:
        x1, y1, x2, y2 = thing.edges
        objects += (
            f"<object><name>{escape(thing.name)}</name><pose>Unspecified</pose><truncated>1</truncated>"
            f"<difficult>{thing.difficult}</difficult><bndbox><xmin>{x1 + shift[0]}</xmin><ymin>{y1 + shift[0]}</ymin>"
            f"<xmax>{x2 + shift[1]}</xmax><ymax>{y2 + shift[1]}</ymax></bndbox>"
            "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
            "</object>\n"
        )
    size = size or "<size><width>100</width><height>50</height><depth>3</depth></size>"
    return (
        f"<annotation{tag}>\n<folder>images</folder><filename>{escape(name)}</filename>{source}{size}"
        f"<segmented>0</segmented>\n{objects}</annotation>\n"
    )


KIT = "<source><database>The VOC2007 Database</database><annotation>PASCAL VOC2007</annotation></source>"
UNKNOWN = "<source><database>Unknown</database><annotation>Unknown</annotation><image>Unknown</image></source>"
STUDIO = "<source><database>MyDatabase</database><annotation>COCO2017</annotation><image>flickr</image></source>"
ROBOFLOW = "<source><database>roboflow.com</database></source>"


def kit(root: Path, subsets: Subsets) -> None:
    """With lists of whole subsets and of single classes."""
    for subset, images in subsets.items():
        for name, things in images.items():
            put(root / f"JPEGImages/{name}.jpg", b"image")
            put(root / f"Annotations/{name}.xml", document(f"{name}.jpg", things, KIT, (1, 0)))
        put(root / f"ImageSets/Main/{subset}.txt", "".join(f"{name}\n" for name in images))
        put(root / f"ImageSets/Main/cat_{subset}.txt", "".join(f"{name} -1\n" for name in images))
    if len(subsets) > 1:
        put(root / "ImageSets/Main/trainval.txt", "".join(f"{n}\n" for s in ("train", "val") for n in subsets[s]))


def cvat(root: Path, subsets: Subsets) -> None:
    for subset, images in subsets.items():
        for name, things in images.items():
            put(root / f"JPEGImages/{name}.jpg", b"image")
            put(root / f"Annotations/{name}.xml", document(f"{name}.jpg", things, UNKNOWN, (0, 0)))
        put(root / f"ImageSets/Main/{subset}.txt", "".join(f"{name}\n" for name in images))
        put(root / f"ImageSets/Main/cat_{subset}.txt", "".join(f"{name} 1\n" for name in images))
    labels = "".join(f"{name}:1,2,3::\n" for name in CLASSES)
    put(root / "labelmap.txt", f"# label:color_rgb:parts:actions\nbackground:0,0,0::\n{labels}")


def labelimg(root: Path, subsets: Subsets) -> None:
    """Beside the images; the name of the file is that of another machine."""
    (images,) = subsets.values()
    for name, things in images.items():
        put(root / f"{name}.jpg", b"image")
        path = f"<path>C:\\Users\\me\\{escape(name)}.jpg</path>"
        text = document(f"{name}.jpg", things, path + "<source><database>Unknown</database></source>", (0, 0))
        put(root / f"{name}.xml", text.replace("<annotation>", '<annotation verified="yes">'))


def label_studio(root: Path, subsets: Subsets) -> None:
    """`filename` has no suffix."""
    (images,) = subsets.values()
    for name, things in images.items():
        put(root / f"images/{name}.jpg", b"image")
        put(root / f"Annotations/{name}.xml", f"<?xml version='1.0'?>{document(name, things, STUDIO, (0, 0))}")


def roboflow(root: Path, subsets: Subsets) -> None:
    for subset, images in subsets.items():
        folder = root / {"val": "valid"}.get(subset, subset)
        for name, things in images.items():
            put(folder / f"{name}.jpg", b"image")
            put(folder / f"{name}.xml", document(f"{name}.jpg", things, ROBOFLOW, (1, 1)))


def found_things(raw: RawDataset, split: str) -> dict[str, list[Thing]]:
    classes = {category["id"]: category["name"] for category in raw.categories}
    names = {image.id: image.path.stem for image in raw.splits[split].images}
    found: dict[str, list[Thing]] = {name: [] for name in names.values()}
    for box in raw.splits[split].boxes:
        x, y, w, h = box.xywh
        found[names[box.image_id]].append(Thing(classes[box.category_id], (x, y, x + w, y + h), int(box.crowd)))
    return found


def same(raw: RawDataset, split: str, images: dict[str, list[Thing]]) -> None:
    assert raw.splits[split].quarantined == []
    found = found_things(raw, split)
    expected = {Path(name).name: things for name, things in images.items()}
    assert found.keys() == expected.keys()
    for name, things in expected.items():
        assert [(t.name, t.difficult) for t in found[name]] == [(t.name, t.difficult) for t in things]
        for got, thing in zip(found[name], things, strict=True):
            assert got.edges == pytest.approx(thing.edges, abs=1e-6)
    assert all(image.path.is_file() for image in raw.splits[split].images)


coordinate = st.integers(0, 5000) | st.integers(0, 500_000).map(lambda hundredths: hundredths / 100)
thing = st.builds(
    Thing, st.sampled_from(CLASSES), st.tuples(coordinate, coordinate, coordinate, coordinate), st.integers(0, 1)
)
stem = st.text("abzAZ019 ._-é猫%&+#'", min_size=1, max_size=8).filter(lambda text: text.strip(". ") == text)


@st.composite
def pictures(draw: Callable) -> dict[str, list[Thing]]:
    folder = draw(st.sampled_from(["", "", "cam 1/", "a/b/"]))
    stems = draw(st.lists(stem.map(folder.__add__), min_size=1, max_size=4, unique_by=str.lower))
    return {name: draw(st.lists(thing, max_size=3)) for name in stems}


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([kit, cvat, roboflow]),
    st.fixed_dictionaries({"train": pictures(), "val": pictures()}, optional={"test": pictures()}),
)
def test_boxes_of_divided_exports_are_those_written(write: Callable[[Path, Subsets], None], subsets: Subsets):
    subsets = {subset: {name + f"-{subset}": found for name, found in one.items()} for subset, one in subsets.items()}
    used = {thing.name for split in ("train", "val") for things in subsets[split].values() for thing in things}
    with TemporaryDirectory() as folder:
        write(Path(folder), subsets)
        if not used:
            put(Path(folder, "labels.txt"), "\n".join(CLASSES))
        raw = voc_dir.read(Path(folder), silent)
        names = [category["name"] for category in raw.categories]
        assert names == (CLASSES if write is cvat or not used else sorted(used))
        assert set(raw.splits) == {"train", "val"}
        for split in ("train", "val"):
            same(raw, split, subsets[split])
        assert raw.reading
        assert raw.reading.left_out[:1] == (["test"] if "test" in subsets else [])


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([kit, cvat, labelimg, label_studio, roboflow]),
    st.sampled_from(["default", "train", "test"]),
    pictures(),
)
def test_boxes_of_undivided_exports_are_those_written(
    write: Callable[[Path, Subsets], None], subset: str, written: dict[str, list[Thing]]
):
    with TemporaryDirectory() as folder:
        write(Path(folder), {subset: written})
        put(Path(folder, "labels.txt"), "\n".join(CLASSES))
        raw = voc_dir.read(Path(folder), silent)
        assert set(raw.splits) == {"train"}
        same(raw, "train", written)
        assert raw.reading
        assert raw.reading.left_out == []


def test_corners_through_prepare(tmp_path):
    """A box over the whole image, and one over its first pixel, in each convention."""
    whole, first = Thing("cat", (0, 0, 100, 50)), Thing("cat", (0, 0, 1, 1))
    for write in (kit, cvat, roboflow):
        root = tmp_path / write.__name__
        write(root, {"train": {"a": [whole, first]}, "val": {"b": [whole]}})
        for name in ("a", "b"):
            (path,) = root.rglob(f"{name}.jpg")
            path.write_bytes(encoded(pixels(100, 50, ord(name))))
        options = parameters("prepare.source=voc-dir", f"prepare.location={root}")
        prepare.run(options, out=tmp_path / f"{write.__name__}-out")
        text = (tmp_path / f"{write.__name__}-out/annotations/instances_train.json").read_text()
        assert [one["bbox"] for one in json.loads(text)["annotations"]] == [[0, 0, 100, 50], [0, 0, 1, 1]]


def test_several_boxes_in_one_object_are_several_objects(tmp_path):
    labelimg(tmp_path, {"train": {"a": [Thing("cat", (0, 0, 9, 9))]}})
    path = tmp_path / "a.xml"
    more = "<bndbox><xmin>20</xmin><ymin>10</ymin><xmax>60</xmax><ymax>30</ymax></bndbox><bndbox/>"
    path.write_text(path.read_text().replace("<part>", f"{more}<part>"))
    split = voc_dir.read(tmp_path, silent).splits["train"]
    assert [box.xywh for box in split.boxes] == [(0, 0, 9, 9), (20, 10, 40, 20)]
    assert [item.reason for item in split.quarantined] == ["bndbox ['', '', '', ''] is not four numbers"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [("90.0", (16, 12, 8, 20)), ("0.0", (10, 18, 20, 8)), ("270", (16, 12, 8, 20)), ("left", None)],
)
def test_the_box_around_one_that_cvat_has_turned(tmp_path, value, expected):
    """20 x 8 px about the centre (20, 22)."""
    cvat(tmp_path, {"train": {"a": [Thing("cat", (10, 18, 30, 26))]}})
    path = tmp_path / "Annotations/a.xml"
    attribute = f"<attributes><attribute><name>rotation</name><value>{value}</value></attribute></attributes>"
    path.write_text(path.read_text().replace("</object>", f"{attribute}</object>"))
    split = voc_dir.read(tmp_path, silent).splits["train"]
    assert [box.xywh for box in split.boxes] == ([pytest.approx(expected)] if expected else [])
    assert [item.reason for item in split.quarantined] == ([] if expected else ["its rotation is not a number"])


def test_a_missing_or_zero_size_is_unknown(tmp_path):
    for size in ("<size/>", "<size><width>0</width><height>0</height></size>"):
        assert parse(document("a.jpg", [], KIT, (1, 0), size).encode()).size_px is None
    assert parse(document("a.jpg", [], KIT, (1, 0)).encode()).size_px == (100, 50)


def test_the_name_of_the_annotation_file_counts_unless_it_finds_no_image(tmp_path):
    for name in ("a", "b", "renamed"):
        put(tmp_path / f"{name}.jpg", b"image")
    put(tmp_path / "a.xml", document("b.jpg", [], UNKNOWN, (0, 0)))  # a stale name
    put(tmp_path / "b.xml", document("b.jpg", [], UNKNOWN, (0, 0)))
    put(tmp_path / "c.xml", document("renamed.jpg", [Thing("cat", (0, 0, 1, 1))], UNKNOWN, (0, 0)))
    images = voc_dir.read(tmp_path, silent).splits["train"].images
    assert [image.path.name for image in images] == ["a.jpg", "b.jpg", "renamed.jpg"]


def test_a_name_that_no_file_can_have_is_left_to_the_check_of_images(tmp_path):
    put(tmp_path / "a.jpg", b"image")
    for item, name in (("a", "a.jpg"), ("b", "x" * 300 + ".jpg")):
        put(tmp_path / f"{item}.xml", document(name, [Thing("cat", (0, 0, 1, 1))], UNKNOWN, (0, 0)))
    images = voc_dir.read(tmp_path, silent).splits["train"].images
    assert [image.path.name for image in images] == ["a.jpg", "x" * 300 + ".jpg"]


def test_of_two_images_of_one_name_the_named_one_is_taken(tmp_path):
    for suffix in ("jpg", "png"):
        put(tmp_path / f"JPEGImages/a.{suffix}", b"image")
    put(tmp_path / "Annotations/a.xml", document("a.png", [Thing("cat", (0, 0, 1, 1))], UNKNOWN, (0, 0)))
    (image,) = voc_dir.read(tmp_path, silent).splits["train"].images
    assert image.path.name == "a.png"


def test_of_two_images_of_one_name_none_is_guessed_unless_they_are_copies(tmp_path):
    for name, seeds in (("copies", (0, 0)), ("others", (0, 1))):
        for kind, seed in zip(("JPEG", "PNG"), seeds, strict=True):
            soft = cv2.resize(pixels(8, 6, seed), (100, 50), interpolation=cv2.INTER_CUBIC)
            put(tmp_path / name / f"JPEGImages/a.{kind.lower()}", encoded(soft, kind))
        put(tmp_path / name / "Annotations/a.xml", document("", [Thing("cat", (0, 0, 1, 1))], UNKNOWN, (0, 0)))
        put(tmp_path / name / "labels.txt", "cat")
    (image,) = voc_dir.read(tmp_path / "copies", silent).splits["train"].images
    assert image.path.name == "a.jpeg"
    split = voc_dir.read(tmp_path / "others", silent).splits["train"]
    assert split.images == []
    (item,) = split.quarantined
    assert item.reason == "the image may be a.jpeg or a.png; write its name into <filename>, or keep one"


def test_a_suffix_in_upper_case(tmp_path):
    things = [Thing("cat", (0, 0, 9, 9))]
    kit(tmp_path / "listed", {"train": {"a": things}, "val": {"b": things}})
    labelimg(tmp_path / "beside", {"train": {"a": things}})
    for path in [*tmp_path.rglob("*.xml")]:
        path.rename(path.with_suffix(".XML"))
    for name in ("listed", "beside"):
        assert voc_dir.is_layout(tmp_path / name)
        same(voc_dir.read(tmp_path / name, silent), "train", {"a": things})
    kit(tmp_path / "listed", {"train": {"a": things}})
    split = voc_dir.read(tmp_path / "listed", silent).splits["train"]
    (item,) = split.quarantined
    assert (item.item, item.reason) == ("a.XML", "a.xml is an annotation file of the same image; keep one")


def test_images_without_an_annotation_file_are_left_out_and_that_is_said(tmp_path):
    """Nobody has looked at them: a background has a file without objects."""
    labelimg(tmp_path, {"all": {"a": [Thing("cat", (0, 0, 1, 1))], "b": []}})
    put(tmp_path / "c.jpg", b"image")
    raw = voc_dir.read(tmp_path, silent)
    assert [image.path.name for image in raw.splits["train"].images] == ["a.jpg", "b.jpg"]
    assert raw.reading
    assert raw.reading.left_out == ["1 image that no list or XML file names"]


def test_what_cannot_be_read_is_quarantined_with_its_place(tmp_path):
    kit(tmp_path, {"train": {"a": [Thing("cat", (0, 0, 9, 9))], "b": [], "c": []}})
    path = tmp_path / "Annotations/a.xml"
    text = path.read_text()
    put(path, text.replace("</annotation>", "<object><name>dog</name></object><object><name/></object></annotation>"))
    put(tmp_path / "Annotations/b.xml", "<annotation><object>")
    put(tmp_path / "ImageSets/Main/train.txt", "a\nb\nc\nnowhere\n")
    put(tmp_path / "Annotations/c.xml", text.replace("<xmin>1<", "<xmin>one<"))
    quarantined = voc_dir.read(tmp_path, silent).splits["train"].quarantined
    assert [(one.kind, one.item, one.reason[:24]) for one in quarantined] == [
        ("box", "a.xml, object 2", "no bndbox"),
        ("box", "a.xml, object 3", "no name of a class"),
        ("image", "b.xml", "unreadable annotation fi"),
        ("box", "c.xml, object 1", "bndbox ['one', '1', '9',"),
        ("image", "nowhere.xml", "no annotation file, thou"),
    ]


@pytest.mark.parametrize("text", ["nan", "1_0", "٣", "", "inf", "1e999", "0x1"])
def test_odd_numbers_are_no_corners(text):
    file = parse(document("a.jpg", [Thing("cat", (0, 0, 7, 9))], KIT, (1, 0)).replace(">7<", f">{text}<").encode())
    assert [number for number, _ in file.bad] == [1] or file.objects[0].xywh[2] == float("inf")


def test_entities_are_refused():
    entities = '<!ENTITY x "xxxxxxxxxx"><!ENTITY y "&x;&x;&x;">'
    bomb = f"<!DOCTYPE a [{entities}]><annotation><filename>&y;</filename></annotation>"
    with pytest.raises(BadXml, match="DOCTYPE"):
        parse(bomb.encode())


def test_a_class_that_the_list_lacks_is_quarantined(tmp_path):
    cvat(tmp_path, {"train": {"a": [Thing(name, (0, 0, 9, 9)) for name in ("dog", "cat")]}, "val": {"b": []}})
    for name in ("a", "b"):
        (tmp_path / f"JPEGImages/{name}.jpg").write_bytes(encoded(pixels(100, 50, ord(name))))
    options = parameters("prepare.source=voc-dir", f"prepare.location={tmp_path}", "prepare.max_bad_fraction=0.5")
    prepare.run(options, out=tmp_path / "out")
    (item,) = json.loads((tmp_path / "out/manifest.json").read_text())["quarantine"]
    assert item["reason"] == "unknown category id 'dog'"


def test_a_folder_without_annotations_lists_what_was_looked_for(tmp_path):
    with pytest.raises(UserError, match=r"no annotations; looked for Annotations/\*.xml, or \*.xml beside the images"):
        voc_dir.read(tmp_path, silent)
    put(tmp_path / "annotations.xml", "<annotations><version>1.1</version></annotations>")  # CVAT for images
    assert not voc_dir.is_layout(tmp_path)
