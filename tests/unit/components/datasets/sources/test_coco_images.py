r"""File names in COCO files as they are written elsewhere: other folders, other machines, Windows, %20, Unicode."""

import json
import unicodedata
from pathlib import Path

import pytest
from coco_source import CocoFolder, box, encoded, parameters, pixels, record
from hypothesis import given
from hypothesis import strategies as st

from components.datasets.sources import coco_dir
from components.stages import prepare
from yolo_core.progress import silent


@pytest.fixture
def source(tmp_path) -> CocoFolder:
    return CocoFolder(tmp_path / "source")


def train_paths(source: CocoFolder) -> list[Path]:
    raw = coco_dir.read(source.save(), silent).splits["train"]
    assert raw.quarantined == []
    return [image.path for image in raw.images]


def expected(source: CocoFolder) -> list[Path]:
    return [source.root / "images/train" / f"{number}.jpg" for number in (1, 2, 3, 4)]


@pytest.mark.parametrize(
    "written",
    [
        "images\\train\\{}.jpg",
        "C:\\Users\\me\\data\\images\\train\\{}.jpg",
        "..\\..\\label-studio\\media\\upload\\4\\{}.jpg",
        "/home/me/data/images/train/{}.jpg",
        "/somewhere/else/{}.jpg",
        "../images/train/{}.jpg",
        "./train//{}.jpg",
        "train2/frames/{}.jpg",
        "https://bucket.example.org/data/train/{}.jpg",
        "s3://bucket/train/{}.jpg",
        "file:///data/{}.jpg",
    ],
)
def test_names_of_another_folder_machine_or_address(source, written):
    for number, image in enumerate(source.train["images"], 1):
        image["file_name"] = written.format(number)
    assert train_paths(source) == expected(source)


def test_a_folder_that_holds_others_of_the_same_name_is_not_that_of_the_images(source):
    """CVAT's images in one folder, of which one lies in a folder called like the subset."""
    for path in expected(source):
        path.rename(source.root / "images" / path.name)
    source.put("1.jpg", encoded(pixels(seed=7)))  # images/train/1.jpg beside images/1.jpg
    source.train["images"].append(record(9, "train/1.jpg"))
    places = [*(f"{number}.jpg" for number in (1, 2, 3, 4)), "train/1.jpg"]
    assert train_paths(source) == [source.root / "images" / place for place in places]


def test_names_of_which_some_leave_the_folder(source):
    names = ["1.jpg", "..\\label\\2.jpg", "/data/3.jpg", "4.jpg"]
    for image, name in zip(source.train["images"], names, strict=True):
        image["file_name"] = name
    assert train_paths(source) == expected(source)


@pytest.mark.parametrize(
    ("on_disk", "written"),
    [
        ("my cat.jpg", "my%20cat.jpg"),
        ("a&b #1.jpg", "a%26b%20%231.jpg"),
        ("cats and dogs/é.jpg", "cats%20and%20dogs/%C3%A9.jpg"),
        (unicodedata.normalize("NFC", "Möwe é.jpg"), unicodedata.normalize("NFD", "Möwe é.jpg")),
        (unicodedata.normalize("NFD", "Möwe é.jpg"), unicodedata.normalize("NFC", "Möwe é.jpg")),
        ("sub/a.jpg", "sub\\a.jpg"),
        ("sub\\a.jpg", "sub\\a.jpg"),  # unpacked on Linux from an archive of Windows
        ("100%.jpg", "100%.jpg"),
        ("my%20cat.jpg", "my%20cat.jpg"),
    ],
)
def test_one_name_that_is_spelled_differently(source, on_disk, written):
    source.add_image(written, None)
    source.put(on_disk, encoded(pixels()))
    assert train_paths(source) == [*expected(source), source.root / "images/train" / on_disk]


def test_a_path_that_two_names_could_mean_is_given_to_neither(source, tmp_path):
    source.train["images"] += [record(8, "/a/9.jpg"), record(9, "/b/9.jpg"), record(10, "/a/1.jpg")]
    source.put("9.jpg", encoded(pixels()))
    raw = coco_dir.read(source.save(), silent).splits["train"]
    assert [(entry.item, entry.reason) for entry in raw.quarantined] == [
        (name, "file name points outside the image folder (instances_train.json)")
        for name in ("/a/9.jpg", "/b/9.jpg", "/a/1.jpg")
    ]


@pytest.mark.parametrize("name", ["/etc/hostname", "../../../etc/hostname", "..", "%2e%2e/secret.jpg", "C:\\"])
def test_nothing_outside_the_data_set_is_read(source, name):
    (source.root / "images/secret.jpg").write_bytes(encoded(pixels()))
    source.train["images"].append(record(9, name))
    raw = coco_dir.read(source.save(), silent).splits["train"]
    for image in raw.images:
        assert image.path.resolve().is_relative_to(source.root / "images/train")
        assert image.id in (1, 2, 3, 4) or not image.path.exists()


def test_names_that_joined_are_the_same_keep_their_images(source, tmp_path):
    for number, name in ((8, "a/b_0.jpg"), (9, "a_b/0.jpg")):
        source.train["images"].append(record(number, name))
        source.train["annotations"].append(box(number, number, [number, 5, 10, 10]))
        source.put(name, encoded(pixels(seed=number)))
    prepare.run(parameters("prepare.source=coco-dir", f"prepare.location={source.save()}"), out=tmp_path / "out")
    document = json.loads((tmp_path / "out/annotations/instances_train.json").read_text())
    assert len({image["file_name"] for image in document["images"]}) == 6
    for image in document["images"][-2:]:
        written = (tmp_path / "out/images/train" / image["file_name"]).read_bytes()
        assert written == encoded(pixels(seed=image["id"]))


def test_a_name_too_long_after_joining_is_shortened(source, tmp_path):
    name = f"{'a' * 200}/{'b' * 200}.jpg"
    source.add_image(name, encoded(pixels()), [1, 2, 3, 4])
    prepare.run(parameters("prepare.source=coco-dir", f"prepare.location={source.save()}"), out=tmp_path / "out")
    document = json.loads((tmp_path / "out/annotations/instances_train.json").read_text())
    assert len(document["images"][-1]["file_name"]) <= 255
    assert (tmp_path / "out/images/train" / document["images"][-1]["file_name"]).is_file()


@pytest.mark.parametrize("name", ["x" * 300 + ".jpg", f"{'x' * 300}/a.jpg"])
def test_a_name_that_no_file_can_have_is_quarantined(source, tmp_path, name):
    source.train["images"].insert(0, record(9, name))
    options = ["prepare.source=coco-dir", f"prepare.location={source.save()}", "prepare.max_bad_fraction=0.5"]
    prepare.run(parameters(*options), out=tmp_path / "out")
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert [entry["kind"] for entry in manifest["quarantine"]] == ["image"]


folders = st.lists(st.text("ab é%", min_size=1, max_size=3).filter(lambda text: text.strip() == text), max_size=2)


@given(
    st.lists(st.tuples(folders, st.text("abc é%_", min_size=1, max_size=4)), min_size=1, max_size=5, unique_by=str),
    st.sampled_from(["", "images/train/", "/mnt/disk 1/", "D:/pets/", "https://example.org/"]),
    st.sampled_from(["/", "\\"]),
)
def test_every_name_finds_its_own_file(tmp_path_factory, files, prefix, separator):
    source = CocoFolder(tmp_path_factory.mktemp("names"))
    source.train["annotations"], source.train["images"] = [], []
    for number, (above, stem) in enumerate(files, 1):
        name = "/".join([*above, f"{stem.strip() or 'x'}{number}.jpg"])
        source.put(name, str(number).encode())
        source.train["images"].append(record(number, (prefix + name).replace("/", separator)))
    raw = coco_dir.read(source.save(), silent).splits["train"]
    assert {image.id: image.path.read_bytes() for image in raw.images} == {
        number: str(number).encode() for number in range(1, len(files) + 1)
    }
    assert len({image.name for image in raw.images}) == len(files)
