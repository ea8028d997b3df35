"""Which parameters decay, and one step of SGD by hand."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from yolo_core.hyperparameters import Hyperparameters
from yolo_core.models.head import Head
from yolo_core.train import optim
from yolo_core.train.schedule import Values

ROOT = Path(__file__).parents[3]
HYP = Hyperparameters(lr0=0.1, momentum=0.9, weight_decay=5e-4)


class Scaled(nn.Module):
    """A layer with a parameter that is neither weight nor bias."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.norm = nn.BatchNorm2d(4)
        self.factor = nn.Parameter(torch.ones(4))


def test_groups_hold_every_parameter_once() -> None:
    model = nn.Sequential(Scaled(), nn.Linear(4, 2))
    named = {id(p): name for name, p in model.named_parameters()}
    weights, others, biases = ([named[id(p)] for p in group] for group in optim.parameter_groups(model))
    assert weights == ["0.conv.weight", "1.weight"]
    assert others == ["0.factor", "0.norm.weight"]
    assert biases == ["0.conv.bias", "0.norm.bias", "1.bias"]


def test_implicit_knowledge_does_not_decay() -> None:
    head = Head([8], [32], anchors_per_level=2, num_classes=1, implicit=True)
    named = {id(p): name for name, p in head.named_parameters()}
    weights, others, biases = ([named[id(p)] for p in group] for group in optim.parameter_groups(head))
    assert weights == ["levels.0.weight"]
    assert others == ["add.0.implicit", "multiply.0.implicit"]
    assert biases == ["levels.0.bias"]


@pytest.mark.parametrize(
    ("batch", "expected"),
    [(64, 5e-4), (16, 5e-4), (128, 1e-3), (48, 5e-4 * 48 / 64)],  # x batch x accumulate / 64: 64, 16x4, 128, 48
)
def test_decay_follows_the_images_of_an_update(batch: int, expected: float) -> None:
    optimizer = optim.build_optimizer(nn.Conv2d(1, 1, 1), HYP, batch, 64)
    assert [group.weight_decay for group in optimizer.groups] == [pytest.approx(expected), 0.0, 0.0]


def test_nesterov_step_by_hand() -> None:
    layer = nn.Linear(1, 1)
    nn.init.constant_(layer.weight, 2.0)
    nn.init.constant_(layer.bias, 1.0)
    optimizer = optim.build_optimizer(layer, HYP, 64, 64)
    optim.apply(optimizer, Values(lr=0.1, bias_lr=0.2, momentum=0.5, accumulate=1), weight_decay=0.01)
    (3 * layer.weight.sum() + 4 * layer.bias.sum()).backward()
    optimizer.step()
    # weight: gradient 3 + 0.01 x 2 = 3.02; momentum 3.02; 2 - 0.1 x (3.02 + 0.5 x 3.02) = 1.547
    assert layer.weight.item() == pytest.approx(1.547)
    # bias, without decay: 1 - 0.2 x (4 + 0.5 x 4) = -0.2
    assert layer.bias.item() == pytest.approx(-0.2)


def test_momentum_is_copied_by_name_into_another_optimizer() -> None:
    torch.manual_seed(0)
    model = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    twin = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    twin.load_state_dict(model.state_dict())
    images = torch.rand(2, 3, 8, 8)
    first, second = (optim.build_optimizer(m, HYP, 64, 64) for m in (model, twin))
    model(images).square().sum().backward()
    first.step()
    first.zero_grad()
    twin.load_state_dict(model.state_dict())
    state = {name: buffer.contiguous().clone() for name, buffer in optim.momentum_state(first, model).items()}
    optim.load_momentum(second, twin, state)
    for m, optimizer in ((model, first), (twin, second)):
        m(images).square().sum().backward()
        optimizer.step()
    assert set(state) == {"weight", "bias"}
    assert torch.equal(model.weight, twin.weight)
    assert torch.equal(model.bias, twin.bias)


@pytest.mark.parametrize("scaled", [False, True], ids=["plain", "with a gradient scaler"])
def test_steps_are_those_of_pytorch_to_the_last_bit(scaled: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 2, 1))
    twin = copy.deepcopy(model)
    own = optim.build_optimizer(model, HYP, 64, 64)
    groups = [
        {"params": parameters, "weight_decay": group.weight_decay}
        for parameters, group in zip(optim.parameter_groups(twin), own.groups, strict=True)
    ]
    theirs = torch.optim.SGD(groups, lr=HYP.lr0, momentum=HYP.momentum, nesterov=True, fused=True)
    for m, optimizer in ((model, own), (twin, theirs)):
        scaler = torch.amp.GradScaler("cpu", enabled=scaled, init_scale=2.0**10)
        for step in range(5):
            images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(step))
            if scaled and step == 2:
                images[0, 0, 0, 0] = torch.inf  # this step is skipped
            scaler.scale(m(images).square().mean()).backward()
            scaler.step(optimizer)  # pyright: ignore[reportArgumentType] - it needs no more than ours has
            scaler.update()
            optimizer.zero_grad()
        assert not scaled or scaler.get_scale() == 2.0**9
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.isfinite(one).all()
        assert torch.equal(one, other)


@pytest.mark.slow
def test_a_training_step_does_not_import_the_compiler() -> None:
    """It takes longer to import than a short training."""
    script = """
import sys
import torch
from torch import nn
from yolo_core.hyperparameters import Hyperparameters
from yolo_core.train import optim
from yolo_core.train.step import reproducible
layer = nn.Linear(1, 1)
optimizer = optim.build_optimizer(layer, Hyperparameters(), 64, 64)
with reproducible(0, torch.device("cpu")):
    layer(torch.ones(1, 1)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "False\n"
