"""COCO as Roboflow, CVAT, Label Studio and FiftyOne lay it out: boxes read are the boxes that the tool wrote."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.datasets.raw import RawDataset
from components.datasets.sources import coco_dir
from yolo_core.errors import UserError
from yolo_core.progress import silent

CLASSES = ["cat", "dog"]
Box = tuple[str, tuple[float, float, float, float]]  # class, xywh px


@dataclass(frozen=True)
class Picture:
    """An image of an export; no test of this module decodes it."""

    name: str
    boxes: tuple[Box, ...] = ()


Subsets = dict[str, list[Picture]]


def document(pictures: Iterable[Picture], categories: list[dict], first_id: int, prefix: str = "") -> dict:
    ids = {record["name"]: record["id"] for record in categories if record["name"] in CLASSES}
    pictures = list(pictures)
    boxes = [(image, box) for image, picture in enumerate(pictures, first_id) for box in picture.boxes]
    return {
        "info": {"year": 2024},
        "licenses": [{"id": 1, "name": "any", "url": ""}],
        "categories": categories,
        "images": [
            {"id": number, "license": 1, "file_name": prefix + picture.name, "height": 50, "width": 100}
            for number, picture in enumerate(pictures, first_id)
        ],
        "annotations": [
            {"id": number, "image_id": image, "category_id": ids[name], "bbox": list(xywh), "area": 1, "iscrowd": 0}
            for number, (image, (name, xywh)) in enumerate(boxes, first_id)
        ],
    }


def put(path: Path, content: dict | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(json.dumps(content).encode() if content else b"image")


def roboflow(root: Path, subsets: Subsets) -> None:
    """Category 0 names the project and has no boxes; ids start at 0 in each folder; images lie beside the JSON."""
    categories = [{"id": 0, "name": "pets-a1B2", "supercategory": "none"}]
    categories += [{"id": n, "name": name, "supercategory": "pets-a1B2"} for n, name in enumerate(CLASSES, 1)]
    for subset, pictures in subsets.items():
        folder = root / {"val": "valid"}.get(subset, subset)
        put(folder / "_annotations.coco.json", document(pictures, categories, 0))
        for picture in pictures:
            put(folder / picture.name)


def cvat(root: Path, subsets: Subsets) -> None:
    categories = [{"id": n, "name": name, "supercategory": ""} for n, name in enumerate(CLASSES, 1)]
    for subset, pictures in subsets.items():
        put(root / f"annotations/instances_{subset}.json", document(pictures, categories, 1))
        for picture in pictures:
            put(root / "images" / subset / picture.name)


def cvat_of_one_folder(root: Path, subsets: Subsets) -> None:
    """As earlier versions write it."""
    cvat(root, subsets)
    for subset, pictures in subsets.items():
        for picture in pictures:
            target = root / "images" / subset / picture.name
            (root / "images" / picture.name).parent.mkdir(parents=True, exist_ok=True)
            target.rename(root / "images" / picture.name)


def label_studio(root: Path, subsets: Subsets) -> None:
    """Without subsets; ids start at 0, names start with the folder of images."""
    (pictures,) = subsets.values()
    categories = [{"id": n, "name": name} for n, name in enumerate(CLASSES)]
    put(root / "result.json", document(pictures, categories, 0, "images/"))
    for picture in pictures:
        put(root / "images" / picture.name)


def fiftyone(root: Path, subsets: Subsets) -> None:
    (pictures,) = subsets.values()
    categories = [{"id": n, "name": name, "supercategory": None} for n, name in enumerate(CLASSES)]
    put(root / "labels.json", document(pictures, categories, 1))
    for picture in pictures:
        put(root / "data" / picture.name)


def read_boxes(raw: RawDataset, split: str) -> dict[str, list[Box]]:
    """Boxes by the content of an image's path, in the order of the file."""
    names = {category["id"]: category["name"] for category in raw.categories}
    found: dict[str, list[Box]] = {image.path.as_posix(): [] for image in raw.splits[split].images}
    paths = {image.id: image.path.as_posix() for image in raw.splits[split].images}
    for box in raw.splits[split].boxes:
        found[paths[box.image_id]].append((names[box.category_id], tuple(box.xywh)))
    return found


def written_boxes(pictures: Iterable[Picture]) -> list[tuple[str, list[Box]]]:
    return sorted((Path(picture.name).name, list(picture.boxes)) for picture in pictures)


def shown(found: dict[str, list[Box]]) -> list[tuple[str, list[Box]]]:
    return sorted((Path(path).name, boxes) for path, boxes in found.items())


number = st.floats(0, 1e6) | st.integers(0, 10**6)
box = st.tuples(st.sampled_from(CLASSES), st.tuples(number, number, number, number))
stem = st.text("abzAZ019 ._-é猫%&+#'", min_size=1, max_size=8).filter(lambda text: text.strip(". ") == text)


@st.composite
def pictures(draw: Callable, least: int = 1) -> list[Picture]:
    stems = draw(st.lists(stem, min_size=least, max_size=5, unique_by=str.lower))
    folder = draw(st.sampled_from(["", "cam 1/", "a/b/"]))
    return [Picture(f"{folder}{name}.jpg", tuple(draw(st.lists(box, max_size=3)))) for name in stems]


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([roboflow, cvat, cvat_of_one_folder]),
    st.fixed_dictionaries({"train": pictures(), "val": pictures()}, optional={"test": pictures()}),
)
def test_boxes_of_divided_exports_are_those_written(write: Callable[[Path, Subsets], None], subsets: Subsets):
    subsets = {
        name: [Picture(f"{name}-{p.name}".replace("/", "-"), p.boxes) for p in ps] for name, ps in subsets.items()
    }
    with TemporaryDirectory() as folder:
        write(Path(folder), subsets)
        raw = coco_dir.read(Path(folder), silent)
        assert [category["name"] for category in raw.categories] == CLASSES
        assert set(raw.splits) == {"train", "val"}
        for split in ("train", "val"):
            assert shown(read_boxes(raw, split)) == written_boxes(subsets[split])
            assert all(image.path.is_file() for image in raw.splits[split].images)
        assert raw.reading
        assert raw.reading.left_out == (["test"] if "test" in subsets else [])


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([roboflow, cvat, label_studio, fiftyone]), st.sampled_from(["test", "default"]), pictures())
def test_boxes_of_undivided_exports_are_those_written(
    write: Callable[[Path, Subsets], None], subset: str, written: list[Picture]
):
    with TemporaryDirectory() as folder:
        write(Path(folder), {subset: written})
        raw = coco_dir.read(Path(folder), silent)
        assert set(raw.splits) == {"train"}
        assert shown(read_boxes(raw, "train")) == written_boxes(written)
        assert all(image.path.is_file() for image in raw.splits["train"].images)


def test_subsets_named_by_the_user_are_joined_with_ids_of_their_own(tmp_path):
    """Each file counts images and annotations from 1, and both have an image of the same name."""
    first = Picture("0.jpg", (("cat", (1, 2, 3, 4)),))
    second = Picture("0.jpg", (("dog", (5, 6, 7, 8)), ("cat", (9, 9, 9, 9))))
    cvat(tmp_path, {"Monday": [first], "Tuesday": [second]})
    train = coco_dir.read(tmp_path, silent).splits["train"]
    assert [(image.id, image.name) for image in train.images] == [(1, "Monday_0.jpg"), (2, "Tuesday_0.jpg")]
    assert [(box.id, box.image_id, box.xywh) for box in train.boxes] == [
        (1, 1, [1, 2, 3, 4]),
        (2, 2, [5, 6, 7, 8]),
        (3, 2, [9, 9, 9, 9]),
    ]


def test_a_box_of_an_unknown_image_stays_so_in_joined_subsets(tmp_path):
    cvat(tmp_path, {"a": [Picture("0.jpg")], "b": [Picture("1.jpg", (("cat", (1, 1, 1, 1)),)), Picture("2.jpg")]})
    path = tmp_path / "annotations/instances_b.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["image_id"] = 3  # the joined id of 2.jpg
    put(path, content)
    (box,) = coco_dir.read(tmp_path, silent).splits["train"].boxes
    assert box.image_id == "3 of b"


def test_roboflows_name_of_the_project_is_no_class_even_if_it_is_the_name_of_one(tmp_path):
    roboflow(tmp_path, {"train": [Picture("0.jpg", (("cat", (1, 1, 2, 2)),))], "val": [Picture("1.jpg")]})
    for path in tmp_path.glob("*/_annotations.coco.json"):
        path.write_text(path.read_text().replace("pets-a1B2", "cat"))
    assert [category["id"] for category in coco_dir.read(tmp_path, silent).categories] == [1, 2]


def test_a_category_that_has_boxes_is_a_class(tmp_path):
    roboflow(tmp_path, {"train": [Picture("0.jpg", (("cat", (1, 1, 2, 2)),))], "val": [Picture("1.jpg")]})
    path = tmp_path / "train/_annotations.coco.json"
    path.write_text(path.read_text().replace('"category_id": 1', '"category_id": 0'))
    assert [category["id"] for category in coco_dir.read(tmp_path, silent).categories] == [0, 1, 2]


def test_splits_without_one_for_training_are_refused(tmp_path):
    roboflow(tmp_path, {"val": [Picture("0.jpg")], "test": [Picture("1.jpg")]})
    with pytest.raises(UserError, match="no split 'train', only 'test', 'valid'; rename one"):
        coco_dir.read(tmp_path, silent)
