"""The authors' files, written here in their layout from our own weights, read back into fresh models."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from yolo_core.errors import UserError
from yolo_core.models import build_model
from yolo_core.models.blocks import BN_EPS, ConvBnAct
from yolo_core.models.decode import decode
from yolo_core.models.detector import Detector
from yolo_core.models.fuse import fuse
from yolo_core.models.official_names_v7 import darknet_input_order
from yolo_core.models.official_weights import DARKNET_ORDER, PYTORCH_NAMES, load_official
from yolo_core.models.rep import Implicit, RepConv
from yolo_core.models.spec import DARKNET_CODING, SIGMOID_CODING

WIDTH, DEPTH = 0.125, 0.34


def trained(name: str, seed: int = 0) -> Detector:
    """A narrow model with normalisation beyond its initial state; some variances are tiny, so that epsilon matters."""
    torch.manual_seed(seed)
    model = build_model(name, num_classes=3, width=WIDTH, depth=DEPTH).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 1e-3, 2)
    return model


def set_eps(model: nn.Module, eps: float) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = eps


@torch.no_grad()
def boxes(model: Detector) -> torch.Tensor:
    size = 2 * max(model.strides)
    images = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    return decode(model(images), model)


def assert_same_boxes(model: Detector, source: Detector) -> None:
    expected = boxes(source)
    assert (boxes(model) - expected).abs().max() < 1e-5 * expected.abs().max()


@torch.no_grad()
def without_training_parts(model: Detector) -> Detector:
    for module in model.modules():
        if isinstance(module, RepConv):
            module.silence_pointwise()
        if isinstance(module, Implicit):
            module.reset_to_neutral()
    return model


def darknet_file(path: Path, model: Detector, version: tuple[int, int] = (0, 2)) -> Path:
    """`model` as Darknet would have written it."""
    order = darknet_input_order(model) if model.spec.family == "yolov7" else {}
    numbers = []
    for layer in DARKNET_ORDER[model.spec.name](model):
        module = model.get_submodule(layer)
        if isinstance(module, ConvBnAct):
            bn, weight = module.bn, module.conv.weight.detach()
            numbers += [getattr(bn, name).detach() for name in ("bias", "weight", "running_mean", "running_var")]
            if layer in order:
                weight = weight[:, order[layer].argsort()]
            numbers.append(weight)
        else:
            numbers += [module.get_parameter("bias").detach(), module.get_parameter("weight").detach()]
    seen = struct.pack("<q" if version >= (0, 2) else "<i", 32_000)
    body = np.concatenate([tensor.flatten().numpy() for tensor in numbers]).astype("<f4").tobytes()
    path.write_bytes(struct.pack("<3i", *version, 5) + seen + body)
    return path


@pytest.mark.parametrize("name", DARKNET_ORDER)
def test_darknet_weights_give_darknets_outputs(name: str, tmp_path: Path):
    source = without_training_parts(trained(name))
    path = darknet_file(tmp_path / "a.weights", source)
    model = trained(name, seed=1)
    report = load_official(model, path)
    set_eps(source, 1e-5)
    source.spec = model.spec  # with Darknet's box coding where it has its own
    assert_same_boxes(model, source)
    assert not report.unused
    assert model.spec.coding == (DARKNET_CODING if name.startswith("yolov4-tiny") else SIGMOID_CODING)


def test_the_header_of_an_old_version_is_shorter(tmp_path: Path):
    source = trained("yolov4-tiny")
    model = trained("yolov4-tiny", seed=1)
    load_official(model, darknet_file(tmp_path / "a.weights", source, version=(0, 1)))
    assert torch.equal(model.head.state_dict()["levels.0.weight"], source.head.state_dict()["levels.0.weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:-4], r"too short: ends within layer head\.levels\.0"),
        (lambda data: data[:2000], r"too short: ends within layer body\.stem\.1"),
        (lambda data: data + bytes(8), r"too long: 2 numbers after the last layer, head\.levels\.0"),
        (lambda data: data[:-1], "not a header and whole numbers; is it cut short"),
        (lambda data: data[:7], "too short for a Darknet header"),
        (lambda _: b"", "too short for a Darknet header"),
        (lambda data: b"\x89PNG" + data, "not a Darknet weights file"),
    ],
)
def test_a_damaged_darknet_file_is_one_line(change, message: str, tmp_path: Path):
    path = darknet_file(tmp_path / "a.weights", trained("yolov4-tiny"))
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UserError, match=message) as caught:
        load_official(trained("yolov4-tiny"), path)
    assert "\n" not in str(caught.value)


LARGE = [pytest.param(name, marks=pytest.mark.slow) for name in ("yolov4-p7", "yolov7-x", "yolov7-e6e")]


@pytest.mark.parametrize("name", ["yolov4-tiny", "yolov4-csp", "yolov7-tiny", *LARGE])
def test_pytorch_weights_give_the_same_outputs(name: str, tmp_path: Path):
    source, model = trained(name), trained(name, seed=1)
    names = PYTORCH_NAMES[name](source)
    state = {theirs: source.state_dict()[ours] for ours, theirs in names.items()}
    eps = 1e-4 if any(theirs.startswith("module_list.") for theirs in state) else BN_EPS
    torch.save({"epoch": -1, "model": state, "ema": None}, tmp_path / "a.pt")
    report = load_official(model, tmp_path / "a.pt")
    set_eps(source, eps)
    assert sorted(report.matched) == sorted(source.state_dict())
    assert (report.absent, report.unused) == ([], [])
    assert_same_boxes(model, source)


@pytest.mark.parametrize("name", ["yolov7", "yolov7-w6"])
def test_a_file_made_for_inference_is_completed_neutrally(name: str, tmp_path: Path):
    """Without implicit knowledge, auxiliary heads and the branches of RepConv, the head at a smaller index."""
    source, model = without_training_parts(trained(name)), trained(name, seed=1)
    names = {k: v for k, v in PYTORCH_NAMES[name](source).items() if "auxiliary" not in k and ".pointwise." not in k}
    head = max(int(theirs.split(".")[1]) for theirs in names.values())
    earlier = head - (4 if source.auxiliary else 0)
    state = {
        theirs.replace(f"model.{head}.", f"model.{earlier}."): source.state_dict()[ours]
        for ours, theirs in names.items()
        if not ours.endswith(".implicit")
    }
    state[f"model.{earlier}.anchor_grid"] = (source.anchors * 2)[:, None, :, None, None]
    torch.save({"model": state}, tmp_path / "a.pt")
    report = load_official(model, tmp_path / "a.pt")
    assert report.anchors
    assert torch.equal(model.anchors, source.anchors * 2)
    source.anchors *= 2
    assert_same_boxes(model, source)
    assert {"auxiliary" in name or "implicit" in name or ".pointwise." in name for name in report.absent} == {True}
    assert report.unused == [f"model.{earlier}.anchor_grid"]
    fuse(model)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"model.0.conv.weight": torch.zeros(3)}, "it has no tensor for"),
        ({}, "it has no tensor for"),
        ([1, 2], "holds neither a model nor its tensors"),
    ],
)
def test_a_file_of_another_model_is_refused(state, message: str, tmp_path: Path):
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(UserError, match=message):
        load_official(trained("yolov4-p5"), tmp_path / "a.pt")


def test_another_number_of_classes_is_refused(tmp_path: Path):
    source = trained("yolov4-csp")
    names = PYTORCH_NAMES["yolov4-csp"](source)
    torch.save({theirs: source.state_dict()[ours] for ours, theirs in names.items()}, tmp_path / "a.pt")
    other = build_model("yolov4-csp", num_classes=4, width=WIDTH, depth=DEPTH)
    with pytest.raises(UserError, match=r"head\.levels\.\d\.\w+ is \(24, .*\(27, .*check the number of classes"):
        load_official(other, tmp_path / "a.pt")


def test_a_model_without_published_files_says_which_have_them(tmp_path: Path):
    with pytest.raises(UserError, match="no Darknet weights of yolov4-p5 exist; they exist for yolov4-p5-darknet"):
        load_official(build_model("yolov4-p5", 3, width=WIDTH), tmp_path / "a.weights")
