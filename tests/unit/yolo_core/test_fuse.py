"""Folding normalisation into convolutions."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from yolo_core.models import build_model
from yolo_core.models.blocks import ConvBnAct
from yolo_core.models.fuse import FoldError, fuse


def trained_looking(num_classes: int = 2):
    """A small model whose normalisation layers are far from identity."""
    torch.manual_seed(0)
    model = build_model("yolov4-tiny", num_classes, width=0.125)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.uniform_(module.bias, -1, 1)
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.1, 3)
    return model


def test_one_channel_by_hand():
    block = ConvBnAct(1, 1, 1)
    bn = block.bn
    assert isinstance(bn, nn.BatchNorm2d)
    block.conv.weight.data.fill_(3)
    bn.weight.data.fill_(2)
    bn.bias.data.fill_(0.5)
    bn.running_mean = torch.tensor([1.0])
    bn.running_var = torch.tensor([4.0 - 1e-3])  # with the epsilon 1e-3: standard deviation 2
    block.eval().fold()
    # (3 x - 1) / 2 x 2 + 0.5 = 3 x - 0.5
    assert block.conv.weight.item() == pytest.approx(3)
    assert block.conv.bias is not None
    assert block.conv.bias.item() == pytest.approx(-0.5)
    x = torch.tensor([[[[2.0, -1.0]]]])
    assert block(x).flatten().tolist() == pytest.approx([5.5, -3.5 * 0.1])


def test_the_copy_has_no_normalisation_and_the_same_outputs():
    model = trained_looking()
    folded = fuse(model)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    assert not folded.training
    assert not any(p.requires_grad for p in folded.parameters())
    assert folded.fold_error is not None
    assert 0 < folded.fold_error < 1e-12  # rounding of float64
    images = torch.rand(2, 3, 64, 96)
    for a, b in zip(model.eval()(images), folded(images), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_the_original_is_left_alone():
    model = trained_looking().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fuse(model)
    assert model.training
    assert model.fold_error is None
    assert all(p.requires_grad for p in model.parameters())
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_folding_twice_changes_nothing():
    once = fuse(trained_looking())
    twice = fuse(once)
    assert twice.fold_error == 0


def test_folded_weights_are_float32_arithmetic_as_before():
    """The check in float64 leaves the weights alone: they are those of folding each block in its own precision."""
    model = trained_looking()
    folded = dict(fuse(model).named_parameters())
    blocks = {name: block for name, block in model.eval().named_modules() if isinstance(block, ConvBnAct)}
    for name, block in blocks.items():
        block.fold()
        assert block.conv.weight.dtype == torch.float32
        assert torch.equal(folded[f"{name}.conv.weight"], block.conv.weight)


def _other_epsilon(bn: nn.BatchNorm2d) -> None:
    bn.eps *= 1.01


def _other_means(bn: nn.BatchNorm2d) -> None:
    assert bn.running_mean is not None
    bn.running_mean *= 1.0001


@pytest.mark.parametrize("wrong", [_other_epsilon, _other_means])
def test_a_wrong_fold_is_told_from_rounding(wrong: Callable[[nn.BatchNorm2d], None], monkeypatch: pytest.MonkeyPatch):
    """1 % of the epsilon, or 1e-4 of the means: both below the rounding of a deep model in float32."""
    fold = ConvBnAct.fold

    def wrongly(block: ConvBnAct) -> None:
        if isinstance(block.bn, nn.BatchNorm2d):
            wrong(block.bn)
        fold(block)

    monkeypatch.setattr(ConvBnAct, "fold", wrongly)
    with pytest.raises(FoldError, match="yolov4-tiny: folding changes the output by"):
        fuse(trained_looking())


@pytest.mark.parametrize("name", [pytest.param("yolov4-p7", marks=pytest.mark.slow), "yolov7-e6e"])
def test_depth_does_not_matter(name: str):
    torch.manual_seed(0)
    model = build_model(name, 2, width=0.125)
    model.train().training_maps(torch.rand(2, 3, 256, 256))  # moves the statistics off their start
    error = fuse(model).fold_error
    assert error is not None
    assert error < 1e-10


def test_weights_that_overflow_are_refused():
    model = trained_looking()
    bn = next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    assert bn.running_var is not None
    bn.weight.data.fill_(3e38)
    bn.running_var.zero_()  # 3e38 / sqrt(1e-3) is 1e40 per unit of weight
    with pytest.raises(FoldError, match=r"too large for torch\.float32"):
        fuse(model)


def test_outputs_that_are_not_numbers_are_refused():
    model = trained_looking()
    model.get_parameter("head.levels.0.bias").data[0] = float("nan")
    with pytest.raises(FoldError):
        fuse(model)
