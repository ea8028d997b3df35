"""YOLO as CVAT, Label Studio, LabelImg and Roboflow lay it out: boxes read are the boxes that the tool wrote."""

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from coco_source import encoded, parameters, pixels
from hypothesis import given, settings
from hypothesis import strategies as st

from components.datasets.raw import RawDataset
from components.datasets.sources import yolo_dir
from components.stages import prepare
from yolo_core.errors import UserError
from yolo_core.progress import silent

CLASSES = ["cat", "traffic light"]
Row = tuple[int, float, float, float, float]
Subsets = dict[str, dict[str, list[Row]]]
"""Rows by image name without suffix, by subset."""


def put(path: Path, text: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


def rows(labels: list[Row]) -> str:
    return "".join(f"{' '.join(map(str, row))}\n" for row in labels)


def cvat(root: Path, subsets: Subsets, prefix: str = "data/") -> None:
    """YOLO 1.1. Numbers have six decimals, paths start with a folder that the archive lacks."""
    names = {"train": "train", "val": "valid"}
    keys = [(names.get(subset, subset), images) for subset, images in subsets.items()]
    for key, images in keys:
        for name, labels in images.items():
            put(root / f"obj_{key}_data/{name}.jpg", b"image")
            text = "".join(f"{c} {' '.join(f'{v:.6f}' for v in box)}\n" for c, *box in labels)
            put(root / f"obj_{key}_data/{name}.txt", text)
        put(root / f"{key}.txt", "".join(f"{prefix}obj_{key}_data/{name}.jpg\n" for name in images))
    lists = "".join(f"{key} = {prefix}{key}.txt\n" for key, _ in keys)
    put(root / "obj.data", f"classes = {len(CLASSES)}\n{lists}names = {prefix}obj.names\nbackup = backup/\n")
    put(root / "obj.names", "".join(f"{name}\n" for name in CLASSES))


def label_studio(root: Path, subsets: Subsets) -> None:
    (images,) = subsets.values()
    for name, labels in images.items():
        put(root / f"images/{name}.jpg", b"image")
        if labels:
            put(root / f"labels/{name}.txt", rows(labels))
    put(root / "classes.txt", "".join(f"{name}\n" for name in CLASSES))
    categories = [{"id": index, "name": name} for index, name in enumerate(CLASSES)]
    info = {"year": 2024, "version": "1.0", "contributor": "Label Studio"}
    put(root / "notes.json", json.dumps({"categories": categories, "info": info}, indent=2))


def labelimg(root: Path, subsets: Subsets) -> None:
    (images,) = subsets.values()
    for name, labels in images.items():
        put(root / f"{name}.jpg", b"image")
        put(root / f"{name}.txt", rows(labels))
    put(root / "classes.txt", "".join(f"{name}\n" for name in CLASSES))


def roboflow_darknet(root: Path, subsets: Subsets) -> None:
    for subset, images in subsets.items():
        folder = root / {"val": "valid"}.get(subset, subset)
        for name, labels in images.items():
            put(folder / f"{name}.jpg", b"image")
            put(folder / f"{name}.txt", rows(labels))
        put(folder / "_darknet.labels", "\n".join(CLASSES))


def ultralytics(root: Path, subsets: Subsets) -> None:
    """A data.yaml whose entries are lists of folders."""
    for subset, images in subsets.items():
        for number, (name, labels) in enumerate(images.items()):
            put(root / f"images/{subset}/{number % 2}/{name}.jpg", b"image")
            put(root / f"labels/{subset}/{number % 2}/{name}.txt", rows(labels))
    lines = [f"{s}: [{', '.join(f'images/{s}/{n}' for n in range(min(len(i), 2)))}]" for s, i in subsets.items()]
    put(root / "data.yaml", "\n".join([*lines, f"names: {json.dumps(CLASSES)}"]))


def found_rows(raw: RawDataset, split: str) -> dict[str, list[tuple[float, ...]]]:
    names = {image.id: image.path.stem for image in raw.splits[split].images}
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in names.values()}
    for box in raw.splits[split].boxes:
        x, y, w, h = box.xywh
        found[names[box.image_id]].append((box.category_id, x + w / 2, y + h / 2, w, h))
    return found


def same(raw: RawDataset, split: str, images: dict[str, list[Row]], root: Path) -> None:
    assert raw.splits[split].quarantined == []
    found = found_rows(raw, split)
    expected = {Path(name).name: labels for name, labels in images.items()}
    assert found.keys() == expected.keys()
    for name, labels in expected.items():
        assert len(found[name]) == len(labels)
        for got, row in zip(found[name], labels, strict=True):
            assert got == pytest.approx(row, abs=1e-6)
    assert all(image.path.is_file() for image in raw.splits[split].images)


fraction = st.integers(0, 10**6).map(lambda millionths: millionths / 10**6)
row = st.tuples(st.integers(0, 1), fraction, fraction, fraction, fraction)
stem = st.text("abzAZ019 ._-é猫%&+#'", min_size=1, max_size=8).filter(lambda text: text.strip(". ") == text)


@st.composite
def images(draw: Callable) -> dict[str, list[Row]]:
    folder = draw(st.sampled_from(["", "", "cam 1/", "a/b/"]))
    stems = draw(st.lists(stem.map(folder.__add__), min_size=1, max_size=4, unique_by=str.lower))
    return {name: draw(st.lists(row, max_size=3, unique=True)) for name in stems}


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([cvat, roboflow_darknet, ultralytics]),
    st.fixed_dictionaries({"train": images(), "val": images()}, optional={"test": images()}),
)
def test_boxes_of_divided_exports_are_those_written(write: Callable[[Path, Subsets], None], subsets: Subsets):
    with TemporaryDirectory() as folder:
        root = Path(folder, "images")  # a name that must not matter
        write(root, subsets)
        raw = yolo_dir.read(root, silent)
        assert [category["name"] for category in raw.categories] == CLASSES
        assert set(raw.splits) == {"train", "val"}
        for split in ("train", "val"):
            same(raw, split, subsets[split], root)
        assert raw.reading
        assert raw.reading.left_out == (["test"] if "test" in subsets else [])


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([cvat, label_studio, labelimg, roboflow_darknet, ultralytics]),
    st.sampled_from(["test", "val", "train"]),
    images(),
)
def test_boxes_of_undivided_exports_are_those_written(
    write: Callable[[Path, Subsets], None], subset: str, written: dict[str, list[Row]]
):
    with TemporaryDirectory() as folder:
        write(Path(folder), {subset: written})
        if write is roboflow_darknet and subset != "train":
            return  # without training images Roboflow writes no train/_darknet.labels
        raw = yolo_dir.read(Path(folder), silent)
        assert set(raw.splits) == {"train"}
        same(raw, "train", written, Path(folder))


def test_cvats_lists_may_lack_the_folder_data_and_may_have_it(tmp_path):
    for prefix in ("", "data/", "./"):
        cvat(tmp_path / prefix.strip("./"), {"train": {"a": [(0, 0.5, 0.5, 0.25, 0.5)]}}, prefix)
        same(yolo_dir.read(tmp_path / prefix.strip("./"), silent), "train", {"a": [(0, 0.5, 0.5, 0.25, 0.5)]}, tmp_path)


def test_cvats_subsets_of_the_users_names_are_one(tmp_path):
    cvat(tmp_path, {"Monday": {"a": [(0, 0.5, 0.5, 0.25, 0.5)]}, "Tuesday": {"b": [(1, 0.5, 0.5, 0.1, 0.1)]}})
    raw = yolo_dir.read(tmp_path, silent)
    assert found_rows(raw, "train") == {"a": [(0, 0.5, 0.5, 0.25, 0.5)], "b": [(1, 0.5, 0.5, 0.1, 0.1)]}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("obj.data", "classes = 2\nnames = data/obj.names\n", "lists no images; expected a line such as train ="),
        ("obj.data", "train = data/other.txt\n", "'data/other.txt' not found; searched"),
        ("obj.names", "\n", "no class names"),
    ],
)
def test_a_wrong_obj_data_is_named(tmp_path, name, text, message):
    cvat(tmp_path, {"train": {"a": []}})
    put(tmp_path / name, text)
    with pytest.raises(UserError, match=message):
        yolo_dir.read(tmp_path, silent)


def test_label_studios_ids_of_classes_count_not_the_lines_of_classes_txt(tmp_path):
    """`category="5"` in the labelling configuration stands in the rows, but not in classes.txt."""
    label_studio(tmp_path, {"all": {"a": [(5, 0.5, 0.5, 0.25, 0.5), (0, 0.5, 0.5, 0.1, 0.1)]}})
    notes = json.loads((tmp_path / "notes.json").read_text())
    notes["categories"] = [{"id": 5, "name": "dog"}, {"id": 0, "name": "cat"}]
    put(tmp_path / "notes.json", json.dumps(notes))
    put(tmp_path / "classes.txt", "dog\ncat\n")
    raw = yolo_dir.read(tmp_path, silent)
    assert raw.categories == [{"id": 0, "name": "cat"}, {"id": 5, "name": "dog"}]
    assert [box.category_id for box in raw.splits["train"].boxes] == [5, 0]


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"info": {"contributor": "me"}, "categories": [{"id": 0, "name": "x"}]}']
)
def test_other_notes_leave_classes_txt_to_count(tmp_path, text):
    label_studio(tmp_path, {"all": {"a": []}})
    put(tmp_path / "notes.json", text)
    assert [category["name"] for category in yolo_dir.read(tmp_path, silent).categories] == CLASSES


def test_the_fingerprint_of_an_obj_data_is_known_unless_images_lie_elsewhere(tmp_path):
    cvat(tmp_path / "in", {"train": {"a": []}})
    params = parameters("prepare.source=yolo-dir", f"prepare.location={tmp_path / 'in'}")
    before = yolo_dir.resolve(params).fingerprint
    put(tmp_path / "in/obj_train_data/b.txt", "0 0.5 0.5 0.1 0.1\n")
    assert None is not before != yolo_dir.resolve(params).fingerprint
    put(tmp_path / "b.jpg", encoded(pixels()))
    put(tmp_path / "in/train.txt", f"{tmp_path}/b.jpg\n")
    assert yolo_dir.resolve(params).fingerprint is None


def test_classes_txt_may_lie_among_the_labels(tmp_path):
    """LabelImg writes it there."""
    label_studio(tmp_path, {"all": {"a": [(1, 0.5, 0.5, 0.25, 0.5)]}})
    (tmp_path / "notes.json").unlink()
    (tmp_path / "classes.txt").rename(tmp_path / "labels/classes.txt")
    raw = yolo_dir.read(tmp_path, silent)
    assert [category["name"] for category in raw.categories] == CLASSES
    same(raw, "train", {"a": [(1, 0.5, 0.5, 0.25, 0.5)]}, tmp_path)


@pytest.mark.parametrize("name", ["classes.txt", "_darknet.labels"])
def test_classes_of_another_order_beside_the_labels_are_refused(tmp_path, name):
    """LabelImg writes a classes.txt into each folder of labels."""
    ultralytics(tmp_path, {split: {split: [(0, 0.5, 0.5, 0.25, 0.5)]} for split in ("train", "val")})
    put(tmp_path / "labels/train/0" / name, "cat\n")  # the first of the classes only, as far as it goes
    assert set(yolo_dir.read(tmp_path, silent).splits) == {"train", "val"}
    put(tmp_path / "labels/val/0" / name, "traffic light\ncat\n")
    with pytest.raises(UserError, match="class 0 is 'traffic light' there and 'cat' for the whole dataset; renumber"):
        yolo_dir.read(tmp_path, silent)


def roboflow(root: Path, splits: dict[str, str]) -> None:
    """splits: where data.yaml says that the images of a split are."""
    put(root / "train/images/a.jpg", b"image")
    put(root / "train/labels/a.txt", "0 0.5 0.5 0.25 0.5\n")
    put(root / "data.yaml", "".join(f"{split}: {place}\n" for split, place in splits.items()) + "nc: 1\nnames: [cat]\n")


def test_a_validation_folder_that_was_not_exported_is_no_validation_split(tmp_path):
    roboflow(tmp_path, {"train": "../train/images", "val": "../valid/images", "test": "../test/images"})
    raw = yolo_dir.read(tmp_path, silent)
    assert set(raw.splits) == {"train"}
    assert raw.reading
    assert raw.reading.left_out == ["test (../test/images not found)", "val (../valid/images not found)"]
    with pytest.raises(UserError, match=r"no validation split.*val \(../valid/images not found\).*val_fraction=0.1"):
        prepare.run(parameters("prepare.source=yolo-dir", f"prepare.location={tmp_path}"), out=tmp_path / "out")


def test_paths_of_another_machine_that_end_in_a_subset_are_found_and_reported(tmp_path, caplog):
    roboflow(tmp_path, {"train": "/kaggle/input/cats/train/images"})
    raw = yolo_dir.read(tmp_path, silent)
    same(raw, "train", {"a": [(0, 0.5, 0.5, 0.25, 0.5)]}, tmp_path)
    assert f"/kaggle/input/cats/train/images is not there; using {tmp_path}/train/images" in caplog.text
    put(tmp_path / "images/b.jpg", b"image")
    roboflow(tmp_path, {"train": "/kaggle/input/cats/images"})  # images/ is not said to be that of train
    with pytest.raises(UserError, match="'/kaggle/input/cats/images' not found"):
        yolo_dir.read(tmp_path, silent)


def test_labels_exported_without_images_are_refused_with_the_first_that_is_missing(tmp_path):
    cvat(tmp_path, {"train": {"a": [(0, 0.5, 0.5, 0.25, 0.5)], "b": []}})
    for path in tmp_path.rglob("*.jpg"):
        path.unlink()
    options = parameters("prepare.source=auto", f"prepare.location={tmp_path}", "prepare.val_fraction=0.5")
    with pytest.raises(UserError, match=r"no image can be read, .*a\.jpg; were the images included in the export\?"):
        prepare.run(options, out=tmp_path / "out")


def test_a_yaml_counts_and_other_names_beside_it_are_reported(tmp_path, caplog):
    cvat(tmp_path, {"train": {"a": [(1, 0.5, 0.5, 0.25, 0.5)]}})
    put(tmp_path / "data.yaml", f"train: train.txt\nnames: {json.dumps(CLASSES)}\n")
    same(yolo_dir.read(tmp_path, silent), "train", {"a": [(1, 0.5, 0.5, 0.25, 0.5)]}, tmp_path)
    assert not caplog.records
    put(tmp_path / "obj.names", "traffic light\ncat\n")
    raw = yolo_dir.read(tmp_path, silent)
    assert [category["name"] for category in raw.categories] == CLASSES
    assert "obj.names names other classes than data.yaml, which is used; delete the wrong one" in caplog.text
