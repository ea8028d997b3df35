"""Finding a COCO layout, and the one-line errors where it is not one."""

import json
import shutil

import pytest
from coco_source import CocoFolder, parameters

from components.datasets.sources import coco_dir
from components.stages import prepare
from yolo_core.errors import UserError
from yolo_core.progress import silent


@pytest.fixture
def source(tmp_path) -> CocoFolder:
    return CocoFolder(tmp_path / "source")


@pytest.mark.parametrize("images", ["images/{}2017", "images/{}", "{}2017", "{}", "images"])
@pytest.mark.parametrize("annotations", ["instances_{}2017.json", "instances_{}.json"])
def test_usual_layouts_are_found(source, images, annotations):
    root = source.save()
    (root / "images").rename(root / "before")
    for split in ("train", "val"):
        (root / "annotations" / f"instances_{split}.json").rename(root / "annotations" / annotations.format(split))
        shutil.copytree(root / "before" / split, root / images.format(split), dirs_exist_ok=True)
    shutil.rmtree(root / "before")
    raw = coco_dir.read(root, silent)
    assert all(image.path.is_file() for split in raw.splits.values() for image in split.images)
    assert [len(split.images) for split in raw.splits.values()] == [4, 2]


def test_file_names_with_folders_are_flattened(source, tmp_path):
    source.train["images"][0]["file_name"] = "train/1.jpg"  # below images/, not below images/train/
    for image in source.train["images"][1:]:
        image["file_name"] = f"train/{image['file_name']}"
    prepare.run(parameters("prepare.source=coco-dir", f"prepare.location={source.save()}"), out=tmp_path / "out")
    assert (tmp_path / "out/images/train/train_1.jpg").is_file()


def test_a_folder_without_annotations_lists_what_was_looked_for(source):
    root = source.save()
    shutil.rmtree(root / "annotations")
    with pytest.raises(UserError, match=r"no COCO annotations; looked for annotations/instances_SPLIT.json \(COCO"):
        coco_dir.read(root, silent)


def test_a_missing_image_folder_lists_what_was_searched(source):
    root = source.save()
    shutil.rmtree(root / "images")
    with pytest.raises(UserError, match=r"no image folder; searched images/train, .*, images, \. below"):
        coco_dir.read(root, silent)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [', "not valid JSON"),
        ("[]", "expected a COCO object"),
        ("version https://git-lfs.github.com/spec/v1", "a pointer of Git LFS; run git lfs pull"),
        ('{"images": [], "annotations": []}', "no list 'categories'"),
        ('{"images": {}, "annotations": [], "categories": []}', "no list 'images'"),
        ('{"images": [], "annotations": [], "categories": [{"id": "one", "name": "x"}]}', "needs an integer id"),
        (
            '{"images": [], "annotations": [], "categories": [{"id": 3, "name": "dog"}, {"id": 3, "name": "cow"}]}',
            "category id 3 is given twice",
        ),
        (
            '{"images": [], "annotations": [], "categories": [{"id": 3, "name": "cow"}]}',
            "category 3 is 'cow' here and 'dog' in another split",
        ),
    ],
)
def test_a_file_that_is_not_coco_is_named_with_the_problem(source, text, message):
    root = source.save()
    path = root / "annotations/instances_val.json"
    path.write_text(text)
    with pytest.raises(UserError) as refusal:
        coco_dir.read(root, silent)
    assert str(refusal.value).startswith(str(path))
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_file_in_another_form_of_unicode_is_read(source, encoding):
    root = source.save()
    path = root / "annotations/instances_train.json"
    path.write_text(path.read_text(), encoding=encoding)
    assert len(coco_dir.read(root, silent).splits["train"].boxes) == 4


def test_a_file_that_is_no_unicode_is_named(source):
    source.train["categories"][0]["name"] = "Katze"
    root = source.save()
    path = root / "annotations/instances_train.json"
    path.write_bytes(path.read_bytes().replace(b"Katze", b"K\xe4fer"))
    with pytest.raises(UserError, match="not UTF-8") as refusal:
        coco_dir.read(root, silent)
    assert "save it as UTF-8" in str(refusal.value)


def test_no_categories_at_all(source):
    for document in source.documents.values():
        document["categories"] = []
    with pytest.raises(UserError, match="the list of categories is empty"):
        coco_dir.read(source.save(), silent)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["prepare.location=null"], "prepare.location: not set"),
        (["prepare.location=/nowhere/at/all"], "prepare.location = /nowhere/at/all: no such folder"),
    ],
)
def test_a_missing_location(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        prepare.run(parameters("prepare.source=coco-dir", *options), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_origin_and_licences_are_carried_over(source, tmp_path):
    source.documents["train"]["info"] = {"year": 2017}
    source.documents["train"]["licenses"] = [{"id": 4, "name": "CC BY"}]
    source.train["images"][0] |= {"license": 4, "coco_url": "u", "unrelated": [1]}
    prepare.run(parameters("prepare.source=coco-dir", f"prepare.location={source.save()}"), out=tmp_path / "out")
    document = json.loads((tmp_path / "out/annotations/instances_train.json").read_text())
    assert list(document) == ["info", "licenses", "images", "annotations", "categories"]
    assert (document["info"], document["licenses"]) == ({"year": 2017}, [{"id": 4, "name": "CC BY"}])
    assert set(document["images"][0]) == {"id", "file_name", "width", "height", "license", "coco_url"}


def test_a_recorded_size_beyond_any_float_is_ignored(source):
    source.train["images"][0]["width"] = 10**400
    first, second, *_ = coco_dir.read(source.save(), silent).splits["train"].images
    assert first.size_px is None
    assert second.size_px == (64, 48)
