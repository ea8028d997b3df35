"""What every model of the zoo must do, checked for each by name."""

import pytest
import torch

from yolo_core.losses.detection import DetectionLoss
from yolo_core.models import build_model, get_spec, model_names
from yolo_core.models.cost import cost
from yolo_core.models.decode import decode
from yolo_core.models.fuse import fuse
from yolo_core.models.weights import load_detector, save_detector

# Counted from the Darknet configurations (2 x multiply-add of the convolutions, native size, 80 classes).
PARAMS = {"yolov4-tiny": 6_056_606, "yolov4-tiny-3l": 6_327_453}

pytestmark = pytest.mark.parametrize("name", model_names())


def small(name: str, seed: int = 0):
    """Full depth, few channels, anchors shrunk to a canvas of 128 px."""
    torch.manual_seed(seed)
    spec = get_spec(name)
    shrink = 128 / spec.native_size
    anchors = tuple(tuple((w * shrink, h * shrink) for w, h in level) for level in spec.anchors)
    return build_model(name, num_classes=3, width=0.25, anchors=anchors)


def batch_for(model, size: int = 128) -> tuple[torch.Tensor, torch.Tensor]:
    """Two images of noise, with a target of every anchor's size in each."""
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    wh = model.anchors.flatten(0, 1).repeat(2, 1)
    count = len(wh)
    place = (0.5 + torch.arange(count)[:, None] * torch.tensor([0.754878, 0.569840])) % 1 * size
    index = torch.arange(count)[:, None]
    return images, torch.cat((index // (count // 2), index % 3, place, wh), 1)


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
    counted = cost(model, model.spec.native_size)
    published = model.spec.published
    assert counted.params == PARAMS[name]
    if published.params_m is not None:
        assert round(counted.params / 1e6, 2) == published.params_m
    if published.gflops is not None:
        assert round(counted.gflops, 1) == published.gflops


def test_maps_have_one_shape_in_every_mode(name):
    model = small(name)
    images = torch.rand(2, 3, 64, 160)
    for mode in (True, False):
        maps = model.train(mode)(images)
        expected = [(2, len(a), 64 // s, 160 // s, 8) for a, s in zip(model.anchors, model.strides, strict=True)]
        assert [m.shape for m in maps] == expected
    decoded = decode(maps, model)
    assert decoded.shape == (2, sum(a * h * w for _, a, h, w, _ in expected), 8)
    assert torch.isfinite(decoded).all()


def test_every_parameter_gets_a_finite_gradient(name):
    model = small(name).train()
    images, targets = batch_for(model)
    loss, _ = DetectionLoss(model, model.spec.hyp)(model(images), targets)
    loss.backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert torch.isfinite(parameter.grad).all(), parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


def test_fused_outputs_are_within_tolerance(name):
    model = small(name).train()
    images, _ = batch_for(model)
    model(images)  # moves the running statistics off their start
    folded = fuse(model, tolerance=1e-4)
    with torch.no_grad():
        before, after = decode(model.eval()(images), model), decode(folded(images), folded)
    assert (before - after).abs().max() < 1e-4 * before.abs().max()


def test_one_training_step_lowers_the_loss(name):
    model = small(name).train()
    for conv in model.head.levels:
        # From the prior, better boxes raise the loss at first: objectness has more overlap to predict.
        # At a probability of one half a change of that goal weighs nothing.
        conv.get_parameter("bias").data.view(model.head.anchors_per_level, -1)[:, 4] = 0
    images, targets = batch_for(model)
    loss_of = DetectionLoss(model, model.spec.hyp)
    first, before = loss_of(model(images), targets)
    first.backward()
    torch.optim.SGD(model.parameters(), lr=1e-3).step()
    with torch.no_grad():
        second, after = loss_of(model(images), targets)
    assert second < first
    assert after["box"] < before["box"]


def test_a_saved_model_answers_the_same(name, tmp_path):
    model = small(name).eval()
    path = tmp_path / "model.safetensors"
    save_detector(path, model, classes=["a", "b", "c"], size=128)
    loaded = load_detector(path).model
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(decode(model(images), model), decode(loaded(images), loaded))
