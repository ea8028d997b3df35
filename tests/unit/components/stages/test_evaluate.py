"""The evaluate stage on a small detector: its files, their agreement, and its refusals."""

import json
from collections import Counter

import cv2
import pytest
import small_detector

from components.params import TileParams
from components.stages import evaluate
from yolo_core import Detector
from yolo_core.errors import UserError
from yolo_core.evaluate.coco_metrics import FIGURES, score
from yolo_core.evaluate.detections import Detections

DOCUMENTS = ("metrics.json", "detections.json", "detections_tta.json", "confusion.json")
PICTURES = ("pr_curve.png", "confusion.png", "samples.jpg")


def run(project, out, **changed):
    arguments = {"model": small_detector.MODEL, "data": project.data, "weights": project.weights, "out": out, **changed}
    return evaluate.run(project.params, **arguments)


@pytest.fixture(scope="module")
def out(project, tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluate")
    run(project, out)
    return out


def test_metrics_are_complete_and_those_of_the_detections(project, out):
    metrics = json.loads((out / "metrics.json").read_text())
    assert list(metrics) == [
        "model",
        "size",
        "strides",
        "images",
        "suppression",
        "plain",
        "tta",
        "per_class",
        "made_of",
    ]
    assert metrics["suppression"] == {"conf": 0.001, "iou": 0.65, "max_detections": 300}
    assert (metrics["model"], metrics["size"], metrics["images"]) == ("yolov4-tiny", 96, 6)
    assert [list(row) for row in metrics["per_class"]] == [["class", "AP", "AP50"]] * 2
    assert [row["class"] for row in metrics["per_class"]] == ["one", "two"]
    for row, file in (("plain", "detections.json"), ("tta", "detections_tta.json")):
        assert list(metrics[row]) == list(FIGURES)
        detections = Detections.of(json.loads((out / file).read_text()))
        for judge in ("hotcoco", "pycocotools"):
            again = score(project.data / "annotations/instances_val.json", detections, judge=judge)
            assert metrics[row] == again.figures
    assert metrics["plain"]["AP50"] > 0.2, "the ground truth is what the detector finds on a slightly smaller canvas"
    assert metrics["tta"] != metrics["plain"]


def test_the_public_detector_scores_the_same(project, out):
    figures = Detector.load(project.weights, device="cpu").evaluate(project.data)
    assert figures == json.loads((out / "metrics.json").read_text())["plain"]


@pytest.mark.parametrize(
    ("tile", "passes"),
    [
        ({"size": 96, "overlap": 0.2}, 1.0),  # no smaller than the images: they are seen whole, as without tiles
        ({"size": 64, "overlap": 0.2}, 5.0),  # 96 - 64 = 32 px in steps of at most 51.2: two by two, and the whole
    ],
)
def test_tiles_are_measured_beside_the_whole_images(project, out, tmp_path, tile, passes):
    params = project.params
    params = params.model_copy(update={"evaluate": params.evaluate.model_copy(update={"tile": TileParams(**tile)})})
    shown = evaluate.run(
        params, model=small_detector.MODEL, data=project.data, weights=project.weights, out=tmp_path / "tiled"
    )
    metrics, plain = (json.loads((folder / "metrics.json").read_text()) for folder in (tmp_path / "tiled", out))
    assert metrics["tiled"]["passes_per_image"] == passes
    assert shown["AP with tiles"] == metrics["tiled"]["figures"]["AP"]
    assert metrics["plain"] == plain["plain"]
    if passes == 1:
        assert metrics["tiled"]["figures"] == plain["plain"]


def test_the_confusion_matrix_counts_every_ground_truth(project, out):
    confusion = json.loads((out / "confusion.json").read_text())
    assert confusion["categories"] == ["one", "two", "background"]
    truth = json.loads((project.data / "annotations/instances_val.json").read_text())["annotations"]
    rows = [sum(row) for row in confusion["matrix"][:2]]  # a ground truth is found as some class, or missed
    counted = Counter(box["category_id"] for box in truth)
    assert rows == [counted[number] for number in sorted(counted)]


def test_pictures_can_be_opened(out):
    for name in PICTURES:
        picture = cv2.imread(str(out / name))
        assert min(picture.shape[:2]) > 300
        assert picture.std() > 5, "not blank"


def test_the_same_inputs_give_the_same_bytes(project, out, tmp_path):
    run(project, tmp_path / "again")
    for name in DOCUMENTS + PICTURES:
        assert (tmp_path / "again" / name).read_bytes() == (out / name).read_bytes(), name


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": "yolov4-csp"}, "holds yolov4-tiny, not yolov4-csp"),
        ({"weights": "missing.safetensors"}, "missing.safetensors: not found; run `scaled-yolov4 train`"),
        ({"data": "missing"}, "missing: not found; run `scaled-yolov4 prepare`"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(project, tmp_path, changed, message):
    changed = {key: value if key == "model" else tmp_path / value for key, value in changed.items()}
    with pytest.raises(UserError, match=message):
        run(project, tmp_path, **changed)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"size": 100}, "--size = 100: yolov4-tiny needs a multiple of 32 px"),
        ({"drop_levels": 1}, "--drop-levels = 1: at most 0 levels of yolov4-tiny can be dropped"),
    ],
)
def test_options_that_the_model_does_not_allow_are_named(project, tmp_path, changed, message):
    with pytest.raises(UserError, match=message):
        run(project, tmp_path, **changed)


def test_other_classes_are_refused(project, tmp_path):
    content = json.loads((project.data / "annotations/instances_val.json").read_text())
    content["categories"][1]["name"] = "three"
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/instances_val.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"trained on 2 classes \(one, two\), but .* has 2 classes \(one, three\)"):
        run(project, tmp_path, data=tmp_path)
