"""Detector files: what is written is read back; anything else is refused in one line."""

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from yolo_core.errors import UserError
from yolo_core.models import build_model
from yolo_core.models.decode import decode
from yolo_core.models.fuse import fuse
from yolo_core.models.spec import DARKNET_CODING
from yolo_core.models.weights import load_detector, save_detector

ANCHORS = (((10.1, 14.7), (23.0, 27.0)), ((81.3, 82.0), (135.0, 169.9)))
CLASSES = ["cat", "dog", "über"]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = build_model("yolov4-tiny", 3, width=0.125, depth=1.5, anchors=ANCHORS)
    model(torch.rand(2, 3, 64, 64))  # moves the running statistics
    return model.eval()


@pytest.fixture
def saved(model, tmp_path) -> Path:
    path = tmp_path / "model.safetensors"
    save_detector(path, model, classes=CLASSES, size=224, extra={"epoch": 3, "AP": 0.25})
    return path


def header_of(path: Path) -> dict:
    data = path.read_bytes()
    return json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])


def rewrite(path: Path, *, change=None, tensors=None) -> None:
    """The file with a changed detector header or other tensors."""
    loaded = load_detector(path)
    header = json.loads(header_of(path)["__metadata__"]["detector"])
    if change:
        header.update(change)
    save_file(tensors or loaded.model.state_dict(), path, metadata={"detector": json.dumps(header)})


def test_everything_survives_a_round_trip(model, saved):
    loaded = load_detector(saved)
    assert loaded.classes == CLASSES
    assert loaded.size == 224
    assert loaded.extra == {"epoch": 3, "AP": 0.25}
    assert (loaded.model.width, loaded.model.depth, loaded.model.num_classes) == (0.125, 1.5, 3)
    assert loaded.model.spec == model.spec
    assert not loaded.model.training
    assert torch.equal(loaded.model.anchors, model.anchors)
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(decode(loaded.model(images), loaded.model), decode(model(images), model))


def test_a_loaded_model_can_be_trained(saved):
    loaded = load_detector(saved).model
    assert all(p.requires_grad for p in loaded.parameters())


def test_a_model_in_another_memory_layout_comes_back(saved, model, tmp_path):
    path = tmp_path / "channels_last.safetensors"
    other = build_model("yolov4-tiny", 3, width=0.125, depth=1.5)
    other.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    save_detector(path, other, classes=CLASSES, size=64)
    weight = "body.stage5.conv.weight"
    assert torch.equal(load_detector(path).model.get_parameter(weight), other.get_parameter(weight))


def test_another_box_coding_comes_back(tmp_path):
    path = tmp_path / "darknet.safetensors"
    model = build_model("yolov4-tiny", 1, width=0.125, coding=DARKNET_CODING)
    save_detector(path, model, classes=["x"], size=416)
    assert load_detector(path).model.spec.coding == DARKNET_CODING


def test_a_failed_save_leaves_the_old_file(model, saved):
    before = saved.read_bytes()
    with pytest.raises(TypeError):
        save_detector(saved, model, classes=CLASSES, size=224, extra={"not JSON": object()})
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_a_fused_copy_is_not_saved(model, tmp_path):
    with pytest.raises(ValueError, match="fused"):
        save_detector(tmp_path / "x.safetensors", fuse(model), classes=CLASSES, size=224)


def test_class_names_must_match(model, tmp_path):
    with pytest.raises(ValueError, match="2 class names for a model of 3"):
        save_detector(tmp_path / "x.safetensors", model, classes=["a", "b"], size=224)


def refused(path: Path, *words: str) -> None:
    with pytest.raises(UserError) as caught:
        load_detector(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_missing_file_is_refused(tmp_path):
    refused(tmp_path / "none.safetensors", "no such file")


def test_a_folder_is_refused(tmp_path):
    refused(tmp_path, "not a readable safetensors file")


@pytest.mark.parametrize("keep", [0, 4, 200, -1])
def test_a_truncated_file_is_refused(saved, keep):
    saved.write_bytes(saved.read_bytes()[:keep])
    refused(saved, "not a readable safetensors file")


@pytest.mark.parametrize("content", [b"hello, this is text\n", b"PK\x03\x04" + bytes(100), b"\x80\x02}q\x00." * 20])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    refused(path, "not a readable safetensors file")


def test_tensors_of_something_else_are_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    refused(path, "not a detector file")


@pytest.mark.parametrize("text", ["{not json", "[1, 2]", "{}", '{"model": "yolov4-tiny"}'])
def test_a_broken_header_is_refused(tmp_path, text):
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(1)}, path, metadata={"detector": text})
    refused(path, "not a detector file")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": "yolov4-tyni"}, ["unknown model 'yolov4-tyni'", "yolov4-tiny"]),
        ({"model": "yolov4-tiny-3l"}, ["anchors"]),
        ({"width": 0.25}, ["tensor", "expected"]),
        ({"depth": 3.0}, ["tensor", "is missing"]),
        ({"width": float("nan")}, ["width"]),
        ({"num_classes": 4}, ["3 of 4 classes"]),
        ({"num_classes": "three"}, ["header"]),
        ({"anchors": [[[1, 2]], [[1, 2]]]}, ["tensor head", "expected"]),
        ({"anchors": [[[1, 2], [3, -4]], [[1, 2], [3, 4]]]}, ["anchor (3, -4)"]),
        ({"anchors": 5}, ["header"]),
        ({"classes": None}, ["header"]),
        ({"coding": {"scale_xy": 1}}, ["header"]),
        ({"size": "big"}, ["header"]),
    ],
)
def test_a_header_that_does_not_fit_is_refused(saved, change, words):
    rewrite(saved, change=change)
    refused(saved, *words)


def test_a_missing_or_surplus_tensor_is_named(saved):
    whole = load_detector(saved).model.state_dict()
    less = {name: value for name, value in whole.items() if name != "body.stage5.conv.weight"}
    rewrite(saved, tensors=less)
    refused(saved, "tensor body.stage5.conv.weight is missing")


def test_a_surplus_tensor_is_named(saved):
    whole = load_detector(saved).model.state_dict()
    rewrite(saved, tensors={**whole, "body.extra": torch.zeros(1)})
    refused(saved, "tensor body.extra is not part of it")


def test_tensors_of_whole_numbers_are_refused(saved):
    whole = load_detector(saved).model.state_dict()
    name = "body.stage5.conv.weight"
    rewrite(saved, tensors={**whole, name: whole[name].to(torch.int32)})
    refused(saved, f"tensor {name} is torch.int32")
