"""What every model of the zoo must do, checked for each by name."""

import dataclasses
from functools import lru_cache

import pytest
import torch
from torch import nn

from yolo_core.deploy.onnx import OnnxPredictor, export_onnx
from yolo_core.losses import make_loss
from yolo_core.models import Detector, build_model, get_spec, model_names
from yolo_core.models.cost import Cost, cost, deploy_cost, paper_cost
from yolo_core.models.decode import decode
from yolo_core.models.fuse import fuse
from yolo_core.models.rep import Implicit
from yolo_core.models.weights import load_detector, save_detector

# As built, with 80 classes: counted from the Darknet configurations, YOLOv7's from the authors' PyTorch.
PARAMS = {
    "yolov4-tiny": 6_056_606,
    "yolov4-tiny-3l": 6_327_453,
    "yolov4-csp": 52_921_437,
    "yolov4-csp-leaky": 52_921_437,
    "yolov4-p5": 70_834_012,
    "yolov4-p6": 127_590_576,
    "yolov4-p7": 287_575_580,
    "yolov4-p5-darknet": 70_830_684,
    "yolov4-p6-darknet": 127_585_200,
    "yolov7-tiny": 6_228_762,
    "yolov7-tiny-silu": 6_228_762,
    "yolov7": 37_622_682,
    "yolov7-x": 71_347_394,
    "yolov7-w6": 82_312_436,
    "yolov7-e6": 111_898_292,
    "yolov7-d6": 154_709_364,
    "yolov7-e6e": 166_408_884,
    "d53-fpnspp-leaky": 63_081_437,
    "d53-fpnspp-mish": 63_081_437,
    "d53-panspp-leaky": 78_330_845,
    "d53-panspp-mish": 78_330_845,
    "cd53s-cfpnspp-leaky": 43_242_589,
    "cd53s-cfpnspp-mish": 43_242_589,
    "cd53s-cpanspp-leaky": 52_921_437,
    "cd53s-cpanspp-mish": 52_921_437,
    "tinycd53s": 6_077_486,
    "cosa-1x3x": 6_459_486,
    "cosa-2x2x": 6_056_606,
    "cosa-3x1x": 5_696_734,
}
# Counts that round to another figure than the printed one, which must lie within 1 % of them.
GFLOPS = {
    "yolov7-tiny-silu": 13.7,  # the paper's 13.8 counts the normalisation layers of an unfolded graph
    # 159.43; the paper's 160 is Darknet's count of 159.51, with 0.03 of residual additions and 0.05 of pooling.
    "d53-panspp-leaky": 159,
    "d53-panspp-mish": 159,
    "tinycd53s": 6.9,  # 6.938 against 7.0; the paper does not say which blocks it kept, and one more makes 7.16
}

ROUNDING = 1e-3  # of the largest prediction, in float32, where it grows with the depth

# One of each family, head and loss.
QUICK = {"yolov4-tiny", "yolov4-csp", "yolov7-tiny", "yolov7", "yolov7-w6"}
MODELS = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in model_names()]

pytestmark = pytest.mark.parametrize("name", MODELS, scope="module")  # all tests of a model in a row


def canvas(name: str) -> int:
    """Pixels: two cells or more at the coarsest level, so that normalisation has several values."""
    return max(128, 2 * max(get_spec(name).strides))


def small(name: str, seed: int = 0) -> Detector:
    """Full depth, few channels, anchors shrunk to the canvas."""
    torch.manual_seed(seed)
    spec = get_spec(name)
    shrink = canvas(name) / spec.native_size
    anchors = tuple(tuple((w * shrink, h * shrink) for w, h in level) for level in spec.anchors)
    return build_model(name, num_classes=3, width=0.125, anchors=anchors)


def batch_for(model: Detector) -> tuple[torch.Tensor, torch.Tensor]:
    """Two images of noise, with a target of every anchor's size in each."""
    size = canvas(model.spec.name)
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    wh = model.anchors.flatten(0, 1).repeat(2, 1)
    count = len(wh)
    place = (0.5 + torch.arange(count)[:, None] * torch.tensor([0.754878, 0.569840])) % 1 * size
    index = torch.arange(count)[:, None]
    return images, torch.cat((index // (count // 2), index % 3, place, wh), 1)


@lru_cache(maxsize=1)
def trained(name: str) -> tuple[Detector, Detector, torch.Tensor]:
    """The small model in evaluation mode, its folded copy, and the images that moved its statistics off their start."""
    model = small(name).train()
    images, _ = batch_for(model)
    model.training_maps(images)
    return model.eval(), fuse(model), images


def loss_for(model: Detector, **gains: float):
    hyp = dataclasses.replace(model.spec.hyp, **gains)  # unchecked: a gain of 0 is out of its range
    return make_loss(model, hyp, size=canvas(model.spec.name))


def test_the_spec_is_whole(name):
    spec = get_spec(name)
    assert spec.name == name
    assert len(spec.anchors) == len(spec.strides) == len(spec.loss.balance)
    assert list(spec.strides) == sorted(spec.strides)
    assert spec.native_size % max(spec.strides) == 0
    assert spec.recipe.epochs > 0
    assert spec.published.source


def test_sizes_are_the_published_ones(name):
    with torch.device("meta"):
        model = build_model(name)
    published = model.spec.published
    assert sum(p.numel() for p in model.parameters()) == PARAMS[name]
    counted = printed(model)
    if published.params_m is not None:
        assert round(counted.params / 1e6, decimals(published.params_m)) == published.params_m
    if published.gflops is not None:
        assert round(counted.gflops, decimals(published.gflops)) == GFLOPS.get(name, published.gflops)
        assert counted.gflops == pytest.approx(published.gflops, rel=0.01)


def printed(model: Detector) -> Cost:
    """The cost as the paper came to print it."""
    size, published = model.spec.native_size, model.spec.published
    if published.graph == "built":
        return paper_cost(model, size)
    # YOLOv7's authors count at 640 px, to one decimal, and take four times that for 1280 px.
    near = min(size, 640)
    counted = paper_cost(model, near)
    if published.with_auxiliary:
        counted = Cost(cost(model, near).params, counted.gflops + auxiliary_gflops(model, near))
    return Cost(counted.params, round(counted.gflops, 1) * (size / near) ** 2)


def auxiliary_gflops(model: Detector, size: int) -> float:
    """Of the folded auxiliary heads: two convolutions per level, with biases."""
    total = 0
    for part in (model.body.get_submodule("auxiliary_outs"), model.get_submodule("auxiliary")):
        convs = [module for module in part.modules() if isinstance(module, nn.Conv2d)]
        for conv, stride in zip(convs, model.strides, strict=True):
            total += 2 * (conv.weight.numel() + conv.out_channels) * (size // stride) ** 2
    return total / 1e9


def decimals(figure: float) -> int:
    return len(str(figure).partition(".")[2])


def test_deployed_size_is_that_of_the_fused_copy(name):
    model, folded, _ = trained(name)
    assert deploy_cost(model, 128).params == sum(p.numel() for p in folded.parameters())


def test_maps_have_one_shape_in_every_mode(name):
    model = small(name)
    stride = max(model.strides)
    height, width = 2 * stride, 3 * stride
    images = torch.rand(2, 3, height, width)
    expected = [(2, len(a), height // s, width // s, 8) for a, s in zip(model.anchors, model.strides, strict=True)]
    for mode in (True, False):
        maps = model.train(mode)(images)
        assert [m.shape for m in maps] == expected
        heads = 1 if model.auxiliary is None else 2
        assert [m.shape for m in model.training_maps(images)] == expected * heads
    for alone, together in zip(maps, model.training_maps(images), strict=False):
        assert torch.equal(alone, together)
    decoded = decode(maps, model)
    assert decoded.shape == (2, sum(a * h * w for _, a, h, w, _ in expected), 8)
    assert torch.isfinite(decoded).all()


def test_every_parameter_gets_a_finite_gradient(name):
    model = small(name).train()
    images, targets = batch_for(model)
    loss, _ = loss_for(model)(model.training_maps(images), targets)
    loss.backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert torch.isfinite(parameter.grad).all(), parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


def test_fused_outputs_are_within_tolerance(name):
    model, folded, images = trained(name)
    assert folded.fold_error < 1e-10
    before, after = exact_predictions(model, images[:1]), exact_predictions(folded, images[:1])
    assert (before - after).abs().max() < 1e-5 * before.abs().max()  # the folded weights are float32
    assert folded.auxiliary is None
    assert not any(isinstance(m, Implicit) or "auxiliary" in n for n, m in folded.named_modules())


def exact_predictions(model: Detector, images: torch.Tensor) -> torch.Tensor:
    """In float64, where rounding does not grow with the depth; the model is left as it was."""
    try:
        with torch.no_grad():
            return decode(model.double()(images.double()), model)
    finally:
        model.float()


def test_onnx_runtime_gives_the_fused_models_predictions(name, tmp_path):
    _, folded, images = trained(name)
    export_onnx(folded, tmp_path / "model.onnx", classes=["a", "b", "c"], size=canvas(name), opset=17)
    with torch.no_grad():
        expected = decode(folded(images), folded)
    found = OnnxPredictor(tmp_path / "model.onnx", threads=1)(images)
    assert (found - expected).abs().max() < ROUNDING * expected.abs().max()


@pytest.mark.parametrize("gains", [{}, {"obj": 0.0, "cls": 0.0}], ids=["whole loss", "boxes alone"])
def test_a_step_down_the_gradient_lowers_the_loss_by_what_the_gradient_says(name, gains):
    model = small(name).double().train()
    for conv in model.head.levels:
        # From the prior, better boxes raise the loss at first: objectness has more overlap to predict.
        # At a probability of one half a change of that goal weighs next to nothing.
        conv.get_parameter("bias").data.view(model.head.anchors_per_level, -1)[:, 4] = 0
    images, targets = batch_for(model)
    loss_of = loss_for(model, **gains)
    first, _ = loss_of(model.training_maps(images.double()), targets)
    first.backward()
    slope = sum(p.grad.square().sum().item() for p in model.parameters() if p.grad is not None)
    expected = 1e-5 * first.item()  # little: the loss of a deep model is far from linear at its start
    torch.optim.SGD(model.parameters(), lr=expected / slope).step()
    with torch.no_grad():
        second, _ = loss_of(model.training_maps(images.double()), targets)
    assert (first - second).item() == pytest.approx(expected, rel=0.3)


def test_a_saved_model_answers_the_same(name, tmp_path):
    model = small(name).eval()
    path = tmp_path / "model.safetensors"
    save_detector(path, model, classes=["a", "b", "c"], size=128)
    loaded = load_detector(path).model
    images = torch.rand(1, 3, canvas(name) // 2, canvas(name) // 2)
    with torch.no_grad():
        assert torch.equal(decode(model(images), model), decode(loaded(images), loaded))
