"""The dataset folder as a whole: reproducible, with a manifest, refused if bad, and no user file is lost."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from coco_source import CocoFolder, box, content, encoded, parameters, pixels

from components.stages import prepare
from yolo_core.errors import UserError

COCO128 = Path(__file__).parents[5] / "shared/data/coco128"


@pytest.fixture
def source(tmp_path) -> CocoFolder:
    return CocoFolder(tmp_path / "source")


def run(source: CocoFolder, out: Path, *options: str) -> dict:
    location = f"prepare.location={source.save()}"
    return prepare.run(parameters("prepare.source=coco-dir", location, *options), out=out)


def test_same_input_gives_the_same_bytes(source, tmp_path):
    run(source, tmp_path / "a")
    run(source, tmp_path / "b")
    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "source"]


def test_the_manifest_hashes_every_file_and_the_whole(source, tmp_path):
    summary = run(source, tmp_path / "out")
    files = content(tmp_path / "out")
    manifest = json.loads(files.pop("manifest.json"))
    assert manifest["files"] == {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    lines = "".join(f"{manifest['files'][name]}  {name}\n" for name in sorted(files))
    assert manifest["sha256"] == hashlib.sha256(lines.encode()).hexdigest() == summary["sha256"]
    assert manifest["source"] == {"kind": "coco-dir", "location": str(source.root)}


def test_another_pixel_or_box_gives_another_hash(source, tmp_path):
    hashes = [run(source, tmp_path / "out")["sha256"]]
    source.put("1.jpg", encoded(pixels(seed=99)))
    hashes.append(run(source, tmp_path / "out")["sha256"])
    source.train["annotations"][0]["bbox"] = [11, 10, 20, 20]
    hashes.append(run(source, tmp_path / "out")["sha256"])
    assert len(set(hashes)) == 3


def test_the_rest_is_prepared_up_to_the_limit(source, tmp_path):
    source.train["annotations"].append(box(50, 1, [9, 9, 0, 5]))
    summary = run(source, tmp_path / "out", "prepare.max_bad_fraction=0.15")  # 1 of 7 boxes = 14.3 %
    assert (summary["train_boxes"], summary["quarantined"]) == (4, 1)


def test_over_the_limit_it_stops_and_leaves_the_report(source, tmp_path):
    source.train["annotations"].append(box(50, 1, [9, 9, 0, 5]))
    with pytest.raises(UserError) as refusal:
        run(source, tmp_path / "out", "prepare.max_bad_fraction=0.14")
    report = tmp_path / "out.quarantine.json"
    assert str(refusal.value) == (
        "1 of 7 boxes (14.3%) are bad, more than prepare.max_bad_fraction = 0.14 allows; all reasons are in "
        f"{report}, the first: annotation 50, image 1.jpg: box [9, 9, 0, 5] has zero size"
    )
    assert json.loads(report.read_text())["boxes"] == {"found": 7, "quarantined": 1}
    assert not (tmp_path / "out").exists()
    run(source, tmp_path / "out", "prepare.max_bad_fraction=0.5")
    assert not report.exists()  # it was of an earlier run


def test_bad_images_count_against_the_limit_too(source, tmp_path):
    source.put("1.jpg", b"")
    with pytest.raises(UserError, match=r"^1 of 6 images \(16.7%\) are bad"):
        run(source, tmp_path / "out", "prepare.max_bad_fraction=0.1")


def test_a_split_without_images_is_refused(source, tmp_path):
    source.documents["val"]["images"] = []
    with pytest.raises(UserError, match="no usable image in split 'val'"):
        run(source, tmp_path / "out", "prepare.max_bad_fraction=1")


def test_a_refused_run_leaves_the_earlier_dataset(source, tmp_path):
    run(source, tmp_path / "out")
    before = content(tmp_path / "out")
    source.put("1.jpg", b"")
    with pytest.raises(UserError):
        run(source, tmp_path / "out")
    assert content(tmp_path / "out") == before


def test_an_earlier_dataset_is_replaced_whole(source, tmp_path):
    run(source, tmp_path / "out")
    source.train["images"].pop()
    source.train["annotations"].pop()
    run(source, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out/images/train").iterdir()) == ["1.jpg", "2.jpg", "3.jpg"]


def test_leftovers_of_a_killed_run_are_removed(source, tmp_path):
    (tmp_path / ".out.building/images").mkdir(parents=True)
    (tmp_path / ".out.building/images/half.jpg").write_bytes(b"x")
    run(source, tmp_path / "out")
    assert "images/half.jpg" not in content(tmp_path / "out")
    assert not (tmp_path / ".out.building").exists()


def test_a_folder_that_is_not_ours_is_refused(source, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("ten years of work")
    with pytest.raises(UserError, match="is not empty and not a prepared dataset"):
        run(source, out)
    assert (out / "thesis.txt").read_text() == "ten years of work"


def test_a_file_added_to_our_folder_is_not_lost(source, tmp_path):
    out = tmp_path / "out"
    run(source, out)
    (out / "images/train/mine.txt").write_text("keep")
    with pytest.raises(UserError, match=r"holds images/train/mine\.txt, which prepare did not write"):
        run(source, out)
    assert (out / "images/train/mine.txt").exists()


def test_an_empty_folder_and_a_file_as_output(source, tmp_path):
    (tmp_path / "empty").mkdir()
    run(source, tmp_path / "empty")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        run(source, tmp_path / "file")


def test_a_prepared_dataset_can_be_prepared_again(source, tmp_path):
    first = run(source, tmp_path / "out")
    again = parameters("prepare.source=coco-dir", f"prepare.location={tmp_path / 'out'}")
    assert prepare.run(again, out=tmp_path / "out")["sha256"] == first["sha256"]


def test_progress_is_reported(source, tmp_path):
    seen = []

    def track(items, label, total=None):
        seen.append((label, total))
        yield from items

    location = f"prepare.location={source.save()}"
    prepare.run(parameters("prepare.source=coco-dir", location), out=tmp_path / "out", progress=track)
    assert ("check train images", 4) in seen


@pytest.mark.skipif(not COCO128.is_dir(), reason="needs ../shared/data/coco128")
def test_real_photographs(tmp_path):
    options = ["prepare.source=coco-dir", f"prepare.location={COCO128}"]
    summary = prepare.run(parameters(*options), out=tmp_path / "out")
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert (summary["train_images"], summary["train_boxes"], summary["classes"]) == (128, 929, 80)
    assert (manifest["categories"][79]["index"], manifest["categories"][79]["id"]) == (79, 90)
    assert manifest["conversions"]["greyscale"]["count"] == 2  # the same photograph in both splits
    shutil.rmtree(tmp_path / "out")
