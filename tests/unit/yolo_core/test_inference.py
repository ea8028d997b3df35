"""The public detector: what it accepts, what it gives, and the same boxes from every runtime."""

import io
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import cv2
import numpy as np
import pytest
import small_detector
from PIL import Image

import yolo_core
from yolo_core import Detector, UserError
from yolo_core.data.coco import load_split
from yolo_core.deploy.onnx_nms import add_nms
from yolo_core.errors import BadFile
from yolo_core.evaluate.predict import predict
from yolo_core.evaluate.suppression import Suppression
from yolo_core.evaluate.tta import Plain
from yolo_core.inference import exporting
from yolo_core.inference.video import frames, video_writer
from yolo_core.models.weights import load_detector

CLASSES = ("one", "two")
CONTRACTS = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["tool"]["importlinter"][
    "contracts"
]
FORBIDDEN = next(one for one in CONTRACTS if one.get("source_modules") == ["yolo_core"])["forbidden_modules"]
LOOSE = {"conf": 0.05, "iou": 0.6, "max_detections": 50}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return small_detector.write(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def detector(project):
    return Detector.load(project.weights, device="cpu")


@pytest.fixture(scope="module")
def exported(detector, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    assert detector.export(folder / "model.onnx") == folder / "model.onnx"
    add_nms(folder / "model.onnx", folder / "model_nms.onnx", Suppression(0.3, 0.5, 300))
    detector.export(folder / "model.xml")
    return folder


@pytest.fixture(scope="module")
def photo(project):
    return project.data / "images/val/1.png"


@pytest.fixture(scope="module")
def wide(photo):
    """An image that is not square: RGB (60, 130, 3)."""
    return np.ascontiguousarray(cv2.resize(cv2.imread(str(photo), cv2.IMREAD_COLOR_RGB), (130, 60)))


def same(found, wanted, px=1e-3, score=1e-4):
    assert len(found) == len(wanted) > 0
    assert found.class_id.tolist() == wanted.class_id.tolist()
    np.testing.assert_allclose(found.xyxy, wanted.xyxy, rtol=0, atol=px)
    np.testing.assert_allclose(found.score, wanted.score, rtol=0, atol=score)


def test_the_package_exports_what_it_names():
    assert all(getattr(yolo_core, name) is not None for name in yolo_core.__all__)
    with pytest.raises(AttributeError, match="Nothing"):
        yolo_core.Nothing  # noqa: B018


def test_a_detection_has_name_score_and_corners(detector, photo):
    result = detector.predict(photo, **LOOSE)
    best = next(iter(result))
    assert best.label in CLASSES
    assert best.label == CLASSES[best.class_id]
    assert best.score == max(result.score) > 0.05
    assert all(0 <= edge <= small_detector.SIZE for edge in best.xyxy)
    assert sum(result.counts().values()) == len(result) == len(result.labels)
    assert result.name == str(photo)


def test_it_finds_what_the_evaluation_finds(detector, project):
    dataset = load_split(project.data, "val")
    wanted = predict(
        Plain(load_detector(project.weights).model),
        dataset,
        size=small_detector.SIZE,
        batch=1,
        suppression=Suppression(**LOOSE),
    )
    found = detector.predict([record.path for record in dataset.images], **LOOSE)
    records = [one for n, result in enumerate(found, 1) for one in result.to_coco(n, dataset.category_ids)]
    assert [one["image_id"] for one in records] == wanted.image_id.tolist()
    assert [one["category_id"] for one in records] == wanted.category_id.tolist()
    np.testing.assert_allclose([one["bbox"] for one in records], wanted.xywh_px, rtol=0, atol=2e-3)


def test_every_form_of_an_image_gives_the_same(detector, photo):
    pixels = cv2.imread(str(photo), cv2.IMREAD_COLOR_RGB)
    alpha = np.dstack([pixels, np.full(pixels.shape[:2], 7, np.uint8)])
    forms = [str(photo), photo.read_bytes(), pixels, alpha, Image.open(photo), Image.fromarray(alpha)]
    wanted = detector.predict(photo, **LOOSE)
    for form in forms:
        same(detector.predict(form, **LOOSE), wanted, px=0, score=0)


def test_grey_pixels_are_grey_in_all_channels(detector, photo):
    grey = cv2.imread(str(photo), cv2.IMREAD_GRAYSCALE)
    same(detector.predict(grey, **LOOSE), detector.predict(np.dstack([grey] * 3), **LOOSE), px=0, score=0)


def test_a_photograph_of_pillow_is_turned_as_its_exif_says(detector, wide):
    turned, buffer = Image.fromarray(wide).transpose(Image.Transpose.ROTATE_90), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise to see it upright
    turned.save(buffer, "PNG", exif=exif)
    same(detector.predict(Image.open(buffer), **LOOSE), detector.predict(wide, **LOOSE), px=0, score=0)


def test_lists_and_generators_keep_their_order_whatever_the_batch(detector, photo, wide):
    pixels = cv2.imread(str(photo), cv2.IMREAD_COLOR_RGB)
    images = [pixels, wide, wide, pixels[::-1].copy(), pixels]
    wanted = [detector.predict(image, **LOOSE) for image in images]
    for found in (detector.predict(images, batch=3, **LOOSE), list(detector.stream(iter(images), batch=2, **LOOSE))):
        assert len(found) == len(images)
        for one, other in zip(found, wanted, strict=True):
            same(one, other)


@pytest.mark.parametrize("file", ["model.onnx", "model.xml"])
def test_every_runtime_finds_the_same_boxes(project, exported, wide, photo, file):
    reference = Detector.load(project.weights, device="cpu", rect=False)
    other = Detector.load(exported / file, device="cpu")
    assert (other.classes, other.size) == (CLASSES, small_detector.SIZE)
    for image in (photo, wide):
        same(other.predict(image, **LOOSE), reference.predict(image, **LOOSE))


def test_what_cannot_be_exported_is_refused(detector, exported, tmp_path):
    with pytest.raises(UserError, match=r"model\.tflite: cannot be written; give a file that ends in \.onnx or \.xml"):
        detector.export(tmp_path / "model.tflite")
    with pytest.raises(UserError, match=r"exported from a ONNX Runtime file; load the \.safetensors of the training"):
        Detector.load(exported / "model.onnx", device="cpu").export(tmp_path / "model.xml")


def test_an_export_that_predicts_something_else_is_removed(detector, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "TOLERANCE", -1)
    with pytest.raises(exporting.ExportError, match=r"its predictions differ by .* of their range; it was removed"):
        detector.export(tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_a_training_in_one_call_gives_a_detector_and_is_not_repeated(project, photo, tmp_path):
    epochs = []
    wanted = {"epochs": 2, "size": 64, "batch": 3, "width": 0.125, "device": "cpu", "start_from": project.weights}
    out = tmp_path / "mine.safetensors"
    trained = Detector.train("yolov4-tiny", project.data, out, on_epoch=epochs.append, **wanted)
    assert [report.row["epoch"] for report in epochs] == [1, 2]
    assert (trained.classes, trained.size) == (CLASSES, 64)
    assert len(trained.predict(photo, conf=0.0001))
    content = out.read_bytes()
    out.unlink()
    Detector.train("yolov4-tiny", project.data, out, on_epoch=epochs.append, **wanted)
    assert len(epochs) == 2
    assert out.read_bytes() == content


def test_canvases_are_only_as_large_as_needed_or_square(project, exported, wide):
    rect, square = (Detector.load(project.weights, device="cpu", rect=rect) for rect in (None, False))
    # 130 x 60 becomes 96 x 44; with half a stride of 32 around it: 4 x 2 strides
    assert rect.prepare(wide).planes.shape == (3, 64, 128)
    assert square.prepare(wide).planes.shape == (3, 96, 96)
    with pytest.raises(UserError, match=r"rect = True: the ONNX Runtime file takes only squares of 96 px"):
        Detector.load(exported / "model.onnx", device="cpu", rect=True)


def test_another_size_is_for_trained_weights_only(project, exported, photo):
    larger = Detector.load(project.weights, device="cpu", size=128)
    assert larger.prepare(photo).planes.shape == (3, 160, 160)
    with pytest.raises(UserError, match="size = 100: yolov4-tiny needs a multiple of 32 px"):
        Detector.load(project.weights, device="cpu", size=100)
    with pytest.raises(UserError, match=r"size = 128: .*model.onnx was exported for 96 px"):
        Detector.load(exported / "model.onnx", device="cpu", size=128)


def test_suppression_is_what_was_asked_for(detector, photo):
    assert len(detector.predict(photo, conf=0.05, max_detections=3)) == 3
    assert min(detector.predict(photo, conf=0.3).score, default=1) > 0.3
    for wrong in ({"conf": 1.5}, {"conf": float("nan")}, {"iou": -1}, {"max_detections": 0}, {"batch": 0}):
        (name,) = wrong
        with pytest.raises(UserError, match=f"^{name} = "):
            detector.predict(photo, **wrong)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), ValueError, r"float32 of shape \(4, 4, 3\); give RGB"),
        (np.zeros((4, 4, 5), np.uint8), ValueError, r"uint8 of shape \(4, 4, 5\)"),
        (b"no image", BadFile, "8 bytes: cannot be decoded"),
        ("nowhere.jpg", BadFile, "nowhere.jpg: no such image"),
        (3, TypeError, "not an image: int"),
    ],
)
def test_what_is_no_image_is_refused(detector, given, error, message):
    with pytest.raises(error, match=message):
        detector.predict(given)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.pt", b"", "model.pt: convert it first: scaled-yolov4 import-weights"),
        ("model.txt", b"", r"not a detector; give a file that ends in \.safetensors, \.onnx, \.xml, \.engine"),
        ("model.onnx", None, "model.onnx: no such file"),
        ("model.onnx", b"junk", "ONNX Runtime cannot open it"),
        ("model.xml", b"junk", "OpenVINO cannot open it"),
        ("model.safetensors", b"junk", "not a readable safetensors file"),
    ],
)
def test_what_is_no_detector_is_refused(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        Detector.load(tmp_path / name, device="cpu")


def test_a_graph_with_nms_points_to_the_one_without(exported):
    with pytest.raises(UserError, match=r"gives detections; give the model\.onnx beside it"):
        Detector.load(exported / "model_nms.onnx", device="cpu")


def test_an_unknown_address_names_the_known_ones():
    with pytest.raises(UserError, match=r"ftp://host/model\.onnx: unknown kind of address \(known: .*models:/"):
        Detector.load("ftp://host/model.onnx")


def test_drawing_leaves_the_image_as_it_is(detector, photo, tmp_path):
    result = detector.predict(photo, **LOOSE)
    before = result.image.copy()
    drawn = result.draw()
    assert drawn.shape == before.shape
    assert (drawn != before).any()
    assert (result.image == before).all()
    result.save(tmp_path / "drawn.png")
    assert (cv2.imread(str(tmp_path / "drawn.png"), cv2.IMREAD_COLOR_RGB) == drawn).all()


def test_coco_records_number_classes_from_one(detector, photo):
    result = detector.predict(photo, **LOOSE)
    first = json.loads(json.dumps(result.to_coco(7)))[0]
    x1, y1, x2, y2 = result.xyxy[0]
    assert (first["image_id"], first["category_id"]) == (7, result.class_id[0] + 1)
    assert first["bbox"] == pytest.approx([x1, y1, x2 - x1, y2 - y1], abs=1e-3)


def test_where_chooses_detections(detector, photo):
    result = detector.predict(photo, **LOOSE)
    ones = result.where(result.class_id == 0)
    assert set(ones.labels) <= {"one"}
    assert len(ones) == result.counts().get("one", 0)


def test_frames_of_a_video_are_detected_in_order(detector, photo, tmp_path):
    pixels = cv2.imread(str(photo), cv2.IMREAD_COLOR_RGB)
    with video_writer(tmp_path / "clip.mp4", 10) as writer:
        for shift in range(5):
            writer.add(np.roll(pixels, 10 * shift, 1))
    results = list(detector.stream(frames(tmp_path / "clip.mp4"), **LOOSE))
    assert len(results) == 5
    for shift, result in enumerate(results):
        assert np.abs(result.image.astype(int) - np.roll(pixels, 10 * shift, 1)).mean() < 12  # lossy


def test_a_video_that_is_none_is_refused(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"junk")
    for name, message in (("clip.mp4", "cannot be opened as a video"), ("no.mp4", "no such video")):
        with pytest.raises(BadFile, match=message):
            list(frames(tmp_path / name))


def test_supervision_takes_the_detections(detector, photo):
    pytest.importorskip("supervision")
    result = detector.predict(photo, **LOOSE)
    found = result.to_supervision()
    np.testing.assert_allclose(found.xyxy, result.xyxy, rtol=1e-6)
    np.testing.assert_allclose(found.confidence, result.score, rtol=1e-6)
    assert found.class_id.tolist() == result.class_id.tolist()
    assert found.data["class_name"].tolist() == result.labels


CORE_ALONE = """
import sys
for name in {extras}:
    sys.modules[name] = None  # importing it fails, as where it is not installed
from yolo_core import Detector, UserError
print(len(Detector.load({weights!r}, device="cpu").predict({photo!r}, conf=0.3)))
try:
    Detector.load("models:/some@champion")
except UserError as error:
    print(error)
"""


def test_the_core_package_is_enough(project, detector, photo):
    """What the extras install is kept from being imported: the detector's own requirements suffice."""
    extras = [*FORBIDDEN, "pandas", "PIL", "onnx", "onnxruntime", "openvino", "nncf", "kubernetes", "requests"]
    code = CORE_ALONE.format(extras=extras, weights=str(project.weights), photo=str(photo))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    count, error = done.stdout.splitlines()
    assert int(count) == len(detector.predict(photo, conf=0.3))
    assert re.fullmatch(r"models:/some@champion: needs more than .*; pip install 'scaled-yolov4\[train\]'", error)
