"""Where images and labels of YOLO data sets lie, and what is one, through `prepare`."""

import logging
import shutil
from pathlib import Path

import cv2
import pytest
from coco_source import encoded, pixels
from PIL import features
from yolo_folder import YoloFolder, boxes, names

from components.datasets.sources import yolo_dir
from yolo_core.errors import UserError
from yolo_core.progress import silent

ROW = b"0 0.5 0.5 0.2 0.4\n"
PICTURE = encoded(pixels(100, 50))


@pytest.fixture
def source(tmp_path) -> YoloFolder:
    return YoloFolder(tmp_path / "source")


@pytest.mark.parametrize(
    ("place_a", "place_b"),
    [
        ("images/train/a.txt", "images/train/b.txt"),
        ("labels/train/a.txt", "images/train/b.txt"),
        ("Labels/train/a.txt", "Labels/train/b.txt"),
        ("labels/train/a.TXT", "images/train/b.txt"),
    ],
)
def test_labels_beside_the_images_or_in_their_own_folder(source, tmp_path, place_a, place_b):
    shutil.rmtree(source.root / "labels/train")
    source.write(place_a, ROW)
    source.write(place_b, ROW)
    manifest, document = source.prepared(tmp_path / "out")
    assert boxes(document) == {"a.jpg": 1, "b.jpg": 1}
    assert manifest["quarantine"] == []


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("Capture d'écran.jpg", "Capture%20d%27%C3%A9cran.txt"),  # Label Studio
        ("e\u0301.jpg", "\u00e9.txt"),  # unpacked on a Mac
        ("IMG_1.JPG", "img_1.txt"),  # written on Windows
        ("c.png.jpg", "c.png.jpg.txt"),
    ],
)
def test_label_names_that_are_written_otherwise(source, tmp_path, image, label):
    source.write(f"images/train/{image}", PICTURE)
    source.write(f"labels/train/{label}", ROW)
    manifest, document = source.prepared(tmp_path / "out", limit=0)
    assert boxes(document) == {"a.jpg": 1, "b.jpg": 1, image: 1}
    assert manifest["quarantine"] == []


@pytest.mark.parametrize("images", [["IMG.jpg", "img.jpg"], ["Img.jpg", "img.png"]])
def test_label_names_that_may_be_two_images_are_not_guessed(source, tmp_path, images):
    for image in images:
        source.write(f"images/train/{image}", PICTURE)
    source.write("labels/train/iMG.txt", ROW)
    manifest, _ = source.prepared(tmp_path / "out")
    assert [entry["item"] for entry in manifest["quarantine"]] == ["labels/train/iMG.txt"]


def test_an_exact_name_comes_first(source, tmp_path):
    source.write("images/train/A.jpg", PICTURE)
    _, document = source.prepared(tmp_path / "out", limit=0)
    assert boxes(document) == {"A.jpg": 0, "a.jpg": 1, "b.jpg": 1}


def test_a_data_set_of_links(source, tmp_path):
    """`images` is a link to a folder of another name, and each image in it is one."""
    store = tmp_path / "store"
    store.mkdir()
    for path in (source.root / "images/train").iterdir():
        path.rename(store / path.name)
    (source.root / "images/train").rmdir()
    (source.root / "images/train").symlink_to(store)
    source.write("train.txt", b"images/train/a.jpg\nimages/train/b.jpg\n")
    source.write("data.yaml", b"train: train.txt\nval: images/val\nnames: [cat, dog]\n")
    manifest, _ = source.prepared(tmp_path / "out", limit=0)
    assert manifest["splits"]["train"]["boxes"] == 2


def test_folders_of_images_within_each_other(source, tmp_path):
    """The folder of labels may stand for either; an image called images.jpg is no folder."""
    for image in ("images/train/images/c.jpg", "images/train/more/images/images.jpg"):
        source.write(image, PICTURE)
    source.write("labels/train/images/c.txt", ROW)
    source.write("images/train/more/labels/images.txt", ROW)
    manifest, document = source.prepared(tmp_path / "out", limit=0)
    assert boxes(document) == {"a.jpg": 1, "b.jpg": 1, "images_c.jpg": 1, "more_images_images.jpg": 1}
    assert manifest["quarantine"] == []


def test_one_label_file_of_two_images(source, tmp_path):
    """Copies of a picture keep its boxes; of two pictures it is unclear which was labelled."""
    soft = cv2.resize(pixels(8, 6), (100, 50), interpolation=cv2.INTER_CUBIC)
    source.write("images/train/a.jpg", encoded(soft))
    source.write("images/train/a.png", encoded(soft, "PNG"))
    source.write("images/train/b.png", encoded(soft, "PNG"))  # b.jpg is noise
    manifest, document = source.prepared(tmp_path / "out")
    assert boxes(document) == {"a.jpg": 1, "a.png": 1}
    assert [(entry["kind"], entry["item"], entry["reason"]) for entry in manifest["quarantine"]] == [
        (
            "image",
            f"images/train/b.{one}",
            f"labels/train/b.txt is also the label file of images/train/b.{other}, another picture; keep one",
        )
        for one, other in (("jpg", "png"), ("png", "jpg"))
    ]


def test_one_label_file_of_images_in_two_splits(source, tmp_path):
    source.write("images/train/c.png", encoded(pixels(100, 50, 5), "PNG"))
    source.write("images/train/c.jpg", PICTURE)
    source.write("labels/train/c.txt", ROW)
    source.write("train.txt", b"images/train/a.jpg\nimages/train/c.png\n")
    source.write("val.txt", b"images/train/b.jpg\nimages/train/c.jpg\n")
    source.write("data.yaml", b"train: train.txt\nval: val.txt\nnames: [cat, dog]\n")
    manifest, document = source.prepared(tmp_path / "out")
    assert boxes(document) == {"images_train_a.jpg": 1}
    assert [(entry["split"], entry["item"]) for entry in manifest["quarantine"]] == [
        ("train", "images/train/c.png"),
        ("val", "images/train/c.jpg"),
    ]


def test_labelled_images_outside_a_folder_called_images_are_read(tmp_path):
    """LabelImg: images and labels in one folder, which has a folder of more images."""
    source = YoloFolder(tmp_path / "source")
    shutil.rmtree(source.root)
    for image in ("a", "images/b", "more/c"):
        source.write(f"{image}.jpg", encoded(pixels(100, 50, ord(image[-1]))))
        source.write(f"{image}.txt", ROW)
    source.write("classes.txt", b"cat\n")
    raw = yolo_dir.read(source.root, silent)
    assert [image.name for image in raw.splits["train"].images] == ["a.jpg", "images_b.jpg", "more_c.jpg"]
    assert len(raw.splits["train"].boxes) == 3


def test_labelled_images_outside_the_subsets_are_said(source, tmp_path, caplog):
    source.write("more/c.jpg", PICTURE)
    source.write("more/c.txt", ROW)
    source.prepared(tmp_path / "out")
    assert "labelled images that lie in no subset: 1, for example more/c.jpg" in caplog.text


def test_two_label_files_of_one_image(source, tmp_path):
    source.write("images/train/a.txt", ROW)  # the same again
    source.write("images/train/b.txt", b"1 0.5 0.5 0.2 0.4\n")
    manifest, document = source.prepared(tmp_path / "out")
    assert boxes(document) == {"a.jpg": 1}
    (entry,) = manifest["quarantine"]
    assert (entry["kind"], entry["item"]) == ("image", "labels/train/b.txt")
    assert entry["reason"] == "differs from images/train/b.txt, a second label file of the same image; keep one"


def test_a_label_file_that_is_a_broken_link(source, tmp_path):
    (source.root / "labels/train/a.txt").unlink()
    (source.root / "labels/train/a.txt").symlink_to("nowhere")
    manifest, document = source.prepared(tmp_path / "out")
    assert names(document) == ["b.jpg"]
    assert manifest["quarantine"][0]["reason"] == "unreadable label file: No such file or directory"


@pytest.mark.parametrize("above", ["images/set", "images/train/images", "set"])
def test_folders_above_the_data_set_do_not_matter(tmp_path, above):
    root = tmp_path / above
    for number in range(4):
        for split in ("train", "val"):
            source = root / split / f"{number}.jpg"
            source.parent.mkdir(parents=True, exist_ok=True)
            source.write_bytes(PICTURE)
            source.with_suffix(".txt").write_bytes(ROW)
    (root / "data.yaml").write_text("train: train\nval: val\nnames: [cat]\n")
    # Another data set's labels, where "images" in the path above would lead to.
    stray = Path(str(root / "train/0.txt").replace("/images/", "/labels/"))
    stray.parent.mkdir(parents=True, exist_ok=True)
    stray.write_bytes(ROW) if not stray.exists() else None
    kept = YoloFolder.__new__(YoloFolder)
    kept.root = root
    manifest, document = kept.prepared(tmp_path / "out")
    assert boxes(document) == dict.fromkeys(["0.jpg", "1.jpg", "2.jpg", "3.jpg"], 1)
    assert manifest["quarantine"] == []


def test_no_labels_at_all_is_said_with_the_places(source, tmp_path, capsys):
    (source.root / "labels").rename(source.root / "annotations")
    source.prepared(tmp_path / "out")
    places = "labels/train, images/train and labels/val, images/val"
    assert f"2 of 2 in train, 2 of 2 in val; labels were looked for in {places}\n" in capsys.readouterr().err


def test_hidden_folders_and_files_are_passed_over(source, tmp_path):
    for hidden in (".ipynb_checkpoints/a-checkpoint.jpg", "._a.jpg", "@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg"):
        source.write(f"images/train/{hidden}", PICTURE)
    source.write("labels/train/.ipynb_checkpoints/a-checkpoint.txt", ROW)
    manifest, document = source.prepared(tmp_path / "out")
    assert boxes(document) == {"a.jpg": 1, "b.jpg": 1}
    assert manifest["quarantine"] == []


def test_linked_folders_are_read_and_circles_end(source, tmp_path):
    elsewhere = YoloFolder(tmp_path / "elsewhere")
    for kind in ("images", "labels"):
        (source.root / kind / "train/seq").symlink_to(elsewhere.root / kind / "val")
        (source.root / kind / "train/round").symlink_to(source.root / kind)
    manifest, document = source.prepared(tmp_path / "out")
    # round/ leads to images/, whose val/ is new there and whose train/ is where it started.
    wanted = ["a.jpg", "b.jpg", "round_val_a.jpg", "round_val_b.jpg", "seq_a.jpg", "seq_b.jpg"]
    assert boxes(document) == dict.fromkeys(wanted, 1)
    assert manifest["quarantine"] == []


@pytest.mark.parametrize("kind", ["nothing", "text", "shortcut"])
def test_links_to_folders_that_cannot_be_followed_are_said(source, tmp_path, caplog, kind):
    name = "seq.lnk" if kind == "shortcut" else "seq"
    if kind == "nothing":
        (source.root / "images/train" / name).symlink_to(tmp_path / "not mounted")
    else:
        source.write(f"images/train/{name}", b"../val")  # as Git checks a link out on Windows
    source.write("images/train/LICENSE", b"CC BY 4.0, see https://creativecommons.org\n")
    with caplog.at_level(logging.WARNING):
        source.prepared(tmp_path / "out", limit=0)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.endswith(f"links that lead to no folder here: 1, for example images/train/{name}")


@pytest.mark.parametrize("ending", ["jfif", "jpe", "JPG", "ppm", "avif"])
def test_endings_of_images(source, tmp_path, ending):
    kind = {"ppm": "PPM", "avif": "AVIF"}.get(ending, "JPEG")
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    source.write(f"images/train/c.{ending}", encoded(pixels(100, 50), kind))
    source.write("labels/train/c.txt", ROW)
    manifest, document = source.prepared(tmp_path / "out")
    assert list(boxes(document).values()) == [1, 1, 1]
    assert manifest["quarantine"] == []


def test_heic_is_named(source, tmp_path):
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
    source.write("images/train/c.heic", heic)
    source.write("images/train/a.HEIC", heic)  # a.jpg is its copy
    source.write("labels/train/c.txt", ROW)
    manifest, document = source.prepared(tmp_path / "out")
    assert names(document) == ["a.jpg", "b.jpg"]
    (entry,) = manifest["quarantine"]
    assert (entry["item"], entry["reason"]) == ("c.heic", "unreadable: a HEIC image; convert it to JPEG")


@pytest.mark.parametrize(
    ("image", "label", "reason"),
    [
        ("images/train/c.psd", "labels/train/c.txt", "its image c.psd has an unsupported format"),
        ("images/train/c.psd", "images/train/c.txt", "its image c.psd has an unsupported format"),
        (None, "labels/train/c.txt", "missing file: no image for it"),
        (None, "labels/train/more/c.txt", "missing file: no image for it"),
        (None, "images/train/c.txt", "missing file: no image for it"),
        ("images/train/more/c.jpg", "images/train/more/Label/c.txt", "missing file: no image for it"),
    ],
)
def test_labels_without_an_image_are_quarantined(source, tmp_path, image, label, reason):
    if image:
        source.write(image, PICTURE)
    source.write(label, b"cat 0.0 146.06 392.39 325.4\n" if "Label" in label else ROW)
    manifest, _ = source.prepared(tmp_path / "out")
    assert [(e["kind"], e["item"], e["reason"]) for e in manifest["quarantine"]] == [("image", label, reason)]


def test_other_texts_are_no_labels(source, tmp_path):
    source.write("images/train/README.txt", b"Photographs of 2024.\n")
    source.write("labels/train/classes.txt", b"cat\ndog\n")
    manifest, _ = source.prepared(tmp_path / "out")
    assert manifest["quarantine"] == []


@pytest.mark.parametrize("train", ["images\\train", "[images\\train]", "images/train\\", "../images/train"])
def test_places_in_a_data_yaml(source, tmp_path, train):
    source.write("data.yaml", f"path: .\\\ntrain: {train}\nval: images/val\ntest: null\nnames: [cat]\n".encode())
    YoloFolder(tmp_path)  # another data set beside it, to which "../" must not lead
    manifest, _ = source.prepared(tmp_path / "out", limit=0)
    assert manifest["splits"]["train"]["boxes"] == 2


def test_a_backslash_in_double_quotes_is_said(source, tmp_path):
    source.write("data.yaml", b'train: "images\\train"\nval: images/val\nnames: [cat]\n')
    with pytest.raises(UserError, match=r"data\.yaml: 'images\\train' not found; in double quotes a backslash"):
        source.prepared(tmp_path / "out")


def test_a_path_of_another_machine_is_said(source, tmp_path, caplog):
    source.write("data.yaml", b"path: /content/set\ntrain: images/train\nval: images/val\nnames: [cat, dog]\n")
    with caplog.at_level(logging.WARNING):
        source.prepared(tmp_path / "out")
    (line,) = [record.getMessage() for record in caplog.records]
    assert "path: /content/set: no such folder; using" in line


def test_folders_in_capitals(source, tmp_path):
    (source.root / "images").rename(source.root / "Images")
    (source.root / "labels").rename(source.root / "LABELS")
    _, document = source.prepared(tmp_path / "out", limit=0)
    assert boxes(document) == {"a.jpg": 1, "b.jpg": 1}
