"""Splitting validation images off a data set that has none, through `prepare`."""

import json
import re
import shutil
import time
from hashlib import sha256
from pathlib import Path

import pytest
from coco_source import box, encoded, parameters, pixels, record
from hypothesis import given
from hypothesis import strategies as st

from components.datasets import validation_split
from components.datasets.validation_split import choose
from components.stages import prepare
from yolo_core.errors import UserError


def write(root: Path, images: dict[str, bytes]) -> Path:
    """An export with one subset, one box an image."""
    shutil.rmtree(root, ignore_errors=True)
    for name, data in images.items():
        path = root / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (root / "annotations").mkdir()
    content = {
        "images": [record(number, name) for number, name in enumerate(images, 1)],
        "annotations": [box(number, number, (number, 1, 10, 10)) for number in range(1, len(images) + 1)],
        "categories": [{"id": 3, "name": "dog"}],
    }
    (root / "annotations/instances_default.json").write_text(json.dumps(content))
    return root


def prepared(source: Path, out: Path, *overrides: str, work: Path | None = None) -> tuple[dict, dict]:
    """The manifest, and the printed facts."""
    facts = prepare.run(
        parameters("prepare.source=coco-dir", f"prepare.location={source}", *overrides), out=out, work=work
    )
    return json.loads((out / "manifest.json").read_text()), facts


def digests(manifest: dict, split: str) -> set[str]:
    return {digest for path, digest in manifest["files"].items() if path.startswith(f"images/{split}/")}


IMAGES = {f"{number}.jpg": encoded(pixels(seed=number)) for number in range(10)}


def test_without_a_validation_split_one_line_says_what_to_set(tmp_path):
    with pytest.raises(UserError, match=re.escape("no validation split, only 10 images of one split; add one")) as why:
        prepared(write(tmp_path / "source", IMAGES), tmp_path / "out")
    assert "prepare.val_fraction=0.1" in str(why.value)


def test_the_images_with_the_smallest_digests_are_for_validation(tmp_path, capsys):
    manifest, facts = prepared(write(tmp_path / "source", IMAGES), tmp_path / "out", "prepare.val_fraction=0.3")
    by_digest = sorted(sha256(data).hexdigest() for data in IMAGES.values())
    assert digests(manifest, "val") == set(by_digest[:3])
    assert digests(manifest, "train") == set(by_digest[3:])
    assert (facts["val_images"], facts["val_boxes"], facts["train_boxes"]) == (3, 3, 7)
    assert manifest["source"]["validation"] == {
        "val_fraction": 0.3, "group_pattern": None, "groups": 10, "val_groups": 3,
    }  # fmt: skip
    assert "val_fraction 0.3: 3 of 10 images by content are for validation" in capsys.readouterr().err


def test_names_and_their_order_do_not_matter_and_each_image_keeps_its_box(tmp_path):
    manifest, _ = prepared(write(tmp_path / "source", IMAGES), tmp_path / "out", "prepare.val_fraction=0.3")
    names = [f"{number}/z{9 - number}.jpg" for number in range(10)]
    renamed = dict(reversed(list(zip(names, IMAGES.values(), strict=True))))
    other, _ = prepared(write(tmp_path / "other", renamed), tmp_path / "out2", "prepare.val_fraction=0.3")
    assert digests(other, "val") == digests(manifest, "val")
    document = json.loads((tmp_path / "out2/annotations/instances_val.json").read_text())
    assert sorted((a["image_id"], a["bbox"][0]) for a in document["annotations"]) == sorted(
        (image["id"], image["id"]) for image in document["images"]
    )


def test_equal_files_stay_on_one_side(tmp_path):
    copies = {f"{number}-{copy}.jpg": data for number, data in enumerate(IMAGES.values()) for copy in range(3)}
    manifest, _ = prepared(write(tmp_path / "source", copies), tmp_path / "out", "prepare.val_fraction=0.3")
    assert not digests(manifest, "val") & digests(manifest, "train")
    assert manifest["splits"]["val"]["images"] == 9  # of 30


def test_groups_that_share_an_equal_image_are_one(tmp_path):
    """video0 shares a file with video1, and that another with video2; video3 stands alone."""
    frames = {f"video{n}/frame.jpg": IMAGES[f"{n}.jpg"] for n in range(4)}
    frames |= {"video1/copy.jpg": IMAGES["0.jpg"], "video2/copy.jpg": IMAGES["1.jpg"]}
    pattern = "prepare.group_pattern='(video[0-9]+)/'"
    source = write(tmp_path / "source", frames)
    for number, fraction in enumerate((0.1, 0.5, 0.9)):
        manifest, _ = prepared(source, tmp_path / f"out{number}", f"prepare.val_fraction={fraction}", pattern)
        assert not digests(manifest, "val") & digests(manifest, "train")
        sizes = [manifest["splits"][split]["images"] for split in ("train", "val")]
        assert sorted(sizes) == [1, 5]
        assert manifest["source"]["validation"]["groups"] == 2


def test_a_test_subset_is_not_taken_for_validation_and_the_line_says_what_to_do(tmp_path):
    source = write(tmp_path / "source", IMAGES)
    annotations = source / "annotations/instances_default.json"
    shutil.copy(annotations, source / "annotations/instances_test.json")
    annotations.rename(source / "annotations/instances_train.json")
    expected = (
        "(not read: test); add one (val or valid; test is not used for validation; rename it to val to use it), or"
    )
    with pytest.raises(UserError, match=re.escape(expected)):
        prepared(source, tmp_path / "out")


def test_frames_of_one_video_stay_together(tmp_path, capsys):
    frames = {f"video{n % 4}/frame_{n}.jpg": data for n, data in enumerate(IMAGES.values())}  # 3, 3, 2, 2 frames
    source = write(tmp_path / "source", frames)
    pattern = "prepare.group_pattern='(video[0-9]+)/'"
    manifest, _ = prepared(source, tmp_path / "out", "prepare.val_fraction=0.3", pattern)
    videos = {
        split: {path.split("/")[2].split("_")[0] for path in manifest["files"] if path.startswith(f"images/{split}/")}
        for split in ("train", "val")
    }
    assert not videos["train"] & videos["val"]
    assert videos["train"] | videos["val"] == {"video0", "video1", "video2", "video3"}
    assert manifest["splits"]["val"]["images"] in (2, 3)  # nearest to 3 of 10
    assert "1 of 4 groups by '(video[0-9]+)/'" in capsys.readouterr().err


def test_a_pattern_that_matches_nothing_is_refused(tmp_path):
    source = write(tmp_path / "source", IMAGES)
    with pytest.raises(UserError, match=r"'\(cam\)_': matches no image's path, for example images/0.jpg"):
        prepared(source, tmp_path / "out", "prepare.val_fraction=0.3", "prepare.group_pattern='(cam)_'")


def test_one_group_cannot_be_split(tmp_path):
    source = write(tmp_path / "source", IMAGES)
    with pytest.raises(UserError, match=r"fewer than two groups of readable images"):
        prepared(source, tmp_path / "out", "prepare.val_fraction=0.3", "prepare.group_pattern='(images)'")


def test_unchanged_images_are_not_read_again(tmp_path, monkeypatch):
    # The change time of an inode cannot be set; the clock that it is compared with can.
    monkeypatch.setattr(time, "time_ns", lambda now=time.time_ns: now() + 3600 * 10**9)
    source, work = write(tmp_path / "source", IMAGES), tmp_path / "work"
    manifest, _ = prepared(source, tmp_path / "out", "prepare.val_fraction=0.3", work=work)
    digested = []
    monkeypatch.setattr(validation_split, "_digest", digested.append)
    again, facts = prepared(source, tmp_path / "out", "prepare.val_fraction=0.3", work=work)
    assert again == manifest
    assert facts["unchanged"] == 10
    assert not digested


def test_an_unreadable_image_is_quarantined_and_not_split(tmp_path):
    source = write(tmp_path / "source", IMAGES)
    (source / "images/0.jpg").unlink()
    (source / "images/1.jpg").write_bytes(b"no image")
    manifest, _ = prepared(source, tmp_path / "out", "prepare.val_fraction=0.3", "prepare.max_bad_fraction=0.2")
    assert sum(split["images"] for split in manifest["splits"].values()) == 8
    assert sorted(item["item"] for item in manifest["quarantine"]) == ["0.jpg", "1.jpg"]


def test_a_validation_split_that_exists_is_kept_and_reported(tmp_path, capsys):
    source = write(tmp_path / "source", IMAGES)
    annotations = source / "annotations/instances_default.json"
    shutil.copy(annotations, source / "annotations/instances_val.json")
    annotations.rename(source / "annotations/instances_train.json")
    _, facts = prepared(source, tmp_path / "out", "prepare.val_fraction=0.3")
    assert (facts["train_images"], facts["val_images"]) == (10, 10)
    assert "val_fraction is not used, because there is a validation split" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("prepare.group_pattern='(a'", "not a regular expression"),
        ("prepare.group_pattern='video'", "its first group in parentheses names the group"),
        ("prepare.group_pattern='(a)'", "group_pattern needs val_fraction"),
        ("prepare.val_fraction=1", "less than 1"),
        ("prepare.val_fraction=0", "greater than 0"),
    ],
)
def test_wrong_parameters_are_refused_when_they_are_read(override, message):
    with pytest.raises(UserError, match=message):
        parameters(override)


@given(st.dictionaries(st.text("0123456789abcdef", min_size=4, max_size=4), st.integers(1, 50), min_size=2), st.data())
def test_the_fraction_is_as_near_as_the_groups_allow(sizes: dict[str, int], data: st.DataObject):
    fraction = data.draw(st.floats(0.01, 0.99))
    chosen = choose(sizes, fraction)
    assert 0 < len(chosen) < len(sizes)
    target, taken = fraction * sum(sizes.values()), sum(sizes[key] for key in chosen)
    left = sizes.keys() - chosen
    if len(left) > 1 and len(chosen) > 1:  # adding any group left would not come closer
        assert all(abs(taken + sizes[key] - target) >= abs(taken - target) for key in left)
    assert choose(dict(reversed(sizes.items())), fraction) == chosen


@given(st.sets(st.text("0123456789abcdef", min_size=8, max_size=8), min_size=2, max_size=200), st.floats(0.01, 0.99))
def test_single_images_give_the_fraction_to_half_an_image(keys: set[str], fraction: float):
    target = fraction * len(keys)
    expected = min(max(round(target), 1), len(keys) - 1)
    assert abs(len(choose(dict.fromkeys(keys, 1), fraction)) - expected) <= (abs(target % 1 - 0.5) < 1e-9)
