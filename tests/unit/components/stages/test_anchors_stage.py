"""The anchors stage on small datasets made by hand."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from components.parameter_file import load
from components.params import Params
from components.stages import anchors
from yolo_core.anchors import training_boxes
from yolo_core.errors import UserError
from yolo_core.models import get_spec

MODEL = "yolov4-tiny"


def params(*overrides: str) -> Params:
    quick = ["anchors.generations=200", "train.size=224"]
    return load(Path("params.yaml"), [*quick, *overrides])


def dataset(folder: Path, boxes_wh: Sequence[tuple[float, float]], width: int = 640, height: int = 480) -> Path:
    """A prepared folder with one image with boxes of the given sizes."""
    annotations = [
        {"id": i, "image_id": 1, "category_id": 1, "bbox": [0, 0, w, h], "area": w * h, "iscrowd": 0}
        for i, (w, h) in enumerate(boxes_wh, 1)
    ]
    content = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": width, "height": height}],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "thing"}],
    }
    (folder / "annotations").mkdir(parents=True)
    (folder / "annotations" / "instances_train.json").write_text(json.dumps(content))
    (folder / "manifest.json").write_text("{}")
    return folder


def run(folder: Path, boxes_wh: Sequence[tuple[float, float]], *overrides: str) -> dict:
    out = folder / "out"
    anchors.run(params(*overrides), data=dataset(folder / "data", boxes_wh), out=out)
    return json.loads((out / f"{MODEL}.json").read_text())


def test_boxes_unlike_the_published_anchors_get_their_own(tmp_path):
    sizes = [(12 + i, 60 + 3 * i) for i in range(60)]  # tall and narrow
    report = run(tmp_path, sizes)
    assert report["chosen"] == "fitted"
    assert (report["model"], report["size"], report["boxes"]) == (MODEL, 224, 60)
    assert report["fitness"]["fitted"] > report["fitness"]["default"]
    assert report["best_possible_recall"]["fitted"] >= report["best_possible_recall"]["default"]
    assert [len(level) for level in report["anchors"]] == [3, 3]
    assert all(h > w for level in report["anchors"] for w, h in level)


def test_published_anchors_stay_when_they_are_the_best(tmp_path):
    published = [wh for level in get_spec(MODEL).anchors for wh in level]
    report = run(tmp_path, [(w, h) for w, h in published] * 3, "train.size=640")  # 5 sizes for 6 anchors
    assert report["chosen"] == "default"
    assert report["fitness"]["fitted"] is None


def test_default_anchors_scale_with_the_training_size(tmp_path):
    report = run(tmp_path, [(50, 50)], "train.size=224")
    spec = get_spec(MODEL)
    w, h = spec.anchors[0][0]
    assert report["anchors"][0][0] == [round(w * 224 / spec.native_size, 2), round(h * 224 / spec.native_size, 2)]


def test_boxes_are_measured_on_the_letterboxed_image(tmp_path):
    # 640 wide to 320: every box halves; the best anchor of 40 x 80 becomes 20 x 40
    settings = params("train.size=320")
    prepared = dataset(tmp_path / "data", [(40 + 0.1 * i, 80 + 0.1 * i) for i in range(10)])
    split = anchors.load_prepared(prepared, "train")
    boxes = training_boxes(split, settings.train_settings(MODEL).size)
    assert boxes[0].tolist() == pytest.approx([20, 40])


def test_anchors_of_every_model_and_of_the_evolved_one(tmp_path):
    prepared = dataset(tmp_path / "data", [(20 + i, 20 + 2 * i) for i in range(50)])
    overrides = ["models=[yolov4-tiny-3l]", "evolve.model=yolov4-tiny", "train.per_model.yolov4-tiny.size=320"]
    anchors.run(params(*overrides), data=prepared, out=tmp_path / "out")
    reports = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "out").iterdir()}
    assert {name: report["size"] for name, report in reports.items()} == {"yolov4-tiny-3l": 224, "yolov4-tiny": 320}
    assert [len(level) for level in reports["yolov4-tiny-3l"]["anchors"]] == [3, 3, 3]


def test_the_same_boxes_give_the_same_file(tmp_path):
    sizes = [(20 + i, 90 - i) for i in range(50)]
    assert run(tmp_path / "a", sizes) == run(tmp_path / "b", sizes)


def test_no_boxes_is_one_line(tmp_path):
    with pytest.raises(UserError, match="no boxes to train on"):
        run(tmp_path, [])


def test_a_missing_dataset_names_the_stage_that_makes_it(tmp_path):
    with pytest.raises(UserError, match="prepare"):
        anchors.run(params(), data=tmp_path / "nothing", out=tmp_path / "out")
