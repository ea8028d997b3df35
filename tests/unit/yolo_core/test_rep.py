"""Re-parameterised convolution and implicit knowledge: what they compute and what they fold into."""

import pytest
import torch
from torch import nn

from yolo_core.hyperparameters import Hyperparameters
from yolo_core.models.blocks import BN_EPS, ConvBnAct
from yolo_core.models.head import Head
from yolo_core.models.rep import ImplicitAdd, ImplicitMultiply, RepConv, fold_implicit
from yolo_core.train.optim import BIASES, WEIGHTS, build_optimizer


def set_bn(block: ConvBnAct, mean: float, factor: float, shift: float):
    """(x - mean) x factor + shift"""
    bn = block.bn
    assert isinstance(bn, nn.BatchNorm2d)
    assert bn.running_mean is not None
    assert bn.running_var is not None
    bn.running_mean.fill_(mean)
    bn.running_var.fill_(1 - BN_EPS)
    bn.weight.data.fill_(factor)
    bn.bias.data.fill_(shift)


def test_one_channel_folds_by_hand():
    block = RepConv(1, 1, activation=nn.Identity).eval()
    assert block.pointwise is not None
    block.dense.conv.weight.data.fill_(1)
    block.pointwise.conv.weight.data.fill_(2)
    set_bn(block.dense, mean=0, factor=1, shift=1)
    set_bn(block.pointwise, mean=1, factor=3, shift=0.5)
    x = torch.zeros(1, 1, 3, 3)
    x[0, 0, 1, 1] = 1
    # Everywhere the 3x3 kernel sees the one: 1 + 1; the 1x1 gives (2 - 1) x 3 + 0.5 on it and -3 + 0.5 beside it.
    expected = torch.full((3, 3), 2 - 2.5)
    expected[1, 1] = 2 + 3.5
    torch.testing.assert_close(block(x)[0, 0], expected)
    block.fold()
    # The 1x1 kernel, 2 x 3, joins the centre; the shifts become 1 - 3 + 0.5.
    assert block.dense.conv.weight.flatten().tolist() == pytest.approx([1, 1, 1, 1, 7, 1, 1, 1, 1])
    assert block.dense.conv.bias is not None
    assert block.dense.conv.bias.item() == pytest.approx(-1.5)
    torch.testing.assert_close(block(x)[0, 0], expected)


def test_folding_leaves_one_convolution_and_is_idempotent():
    torch.manual_seed(0)
    block = RepConv(5, 7)
    for _ in range(3):  # running statistics that are not the initial ones
        block(torch.randn(4, 5, 6, 6) * 2 + 1)
    block.eval()
    x = torch.randn(2, 5, 6, 6)
    before = block(x)
    block.fold()
    once = block(x)
    torch.testing.assert_close(once, before)
    assert sum(isinstance(m, nn.Conv2d | nn.BatchNorm2d) for m in block.modules()) == 1
    block.fold()
    assert torch.equal(block(x), once)


def test_a_silent_pointwise_branch_adds_nothing_and_can_learn_again():
    torch.manual_seed(0)
    block = RepConv(3, 4, activation=nn.Identity)
    assert block.pointwise is not None
    set_bn(block.pointwise, mean=1, factor=3, shift=0.5)
    block.silence_pointwise()
    x = torch.randn(2, 3, 5, 5)
    for mode in (True, False):
        block.train(mode)
        torch.testing.assert_close(block(x), block.dense(x))
    block.train()(x).square().sum().backward()
    assert block.pointwise.conv.weight.grad is not None
    assert block.pointwise.conv.weight.grad.abs().sum() > 0


def test_implicit_knowledge_folds_by_hand():
    add, conv, multiply = ImplicitAdd(2), nn.Conv2d(2, 1, 1), ImplicitMultiply(1)
    assert conv.bias is not None
    add.implicit.data = torch.tensor([1.0, -2.0]).view(1, 2, 1, 1)
    multiply.implicit.data.fill_(0.5)
    conv.weight.data = torch.tensor([4.0, 6.0]).view(1, 2, 1, 1)
    conv.bias.data.fill_(3)
    x = torch.tensor([1.0, 1.0]).view(1, 2, 1, 1)
    assert multiply(conv(add(x))).item() == pytest.approx((4 * 2 + 6 * -1 + 3) / 2)
    fold_implicit(add, conv, multiply)
    assert conv.weight.flatten().tolist() == [2, 3]
    assert conv.bias.item() == (4 * 1 + 6 * -2 + 3) / 2
    assert conv(x).item() == pytest.approx(2.5)


def test_implicit_knowledge_starts_near_neutral():
    torch.manual_seed(0)
    for module, neutral in ((ImplicitAdd(4000), 0), (ImplicitMultiply(4000), 1)):
        assert module.implicit.mean().item() == pytest.approx(neutral, abs=0.002)
        assert module.implicit.std().item() == pytest.approx(0.02, rel=0.1)
        module.reset_to_neutral()
        x = torch.rand(1, 4000, 2, 1)
        assert torch.equal(module(x), x)


def test_a_head_folds_its_implicit_knowledge():
    torch.manual_seed(0)
    head = Head((4, 6), (8, 16), 3, 2, implicit=True)
    features = [torch.randn(2, 4, 3, 5), torch.randn(2, 6, 2, 3)]
    before = head(features)
    assert [m.shape for m in before] == [(2, 3, 3, 5, 7), (2, 3, 2, 3, 7)]
    head.fold()
    assert {name for name, _ in head.named_parameters()} == {
        f"levels.{i}.{p}" for i in (0, 1) for p in ("weight", "bias")
    }
    for a, b in zip(before, head(features), strict=True):
        torch.testing.assert_close(a, b)


def test_implicit_knowledge_does_not_decay():
    head = Head((4,), (8,), 3, 2, implicit=True)
    groups = build_optimizer(head, Hyperparameters(), batch=64, nominal_batch=64).groups
    implicit = {id(p) for name, p in head.named_parameters() if "implicit" in name}
    assert len(implicit) == 2
    for index in (WEIGHTS, BIASES):
        assert not implicit & {id(p) for p in groups[index].parameters}
