"""The losses against figures of the original implementations (see tests/golden/README.md)."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from yolo_core.hyperparameters import Hyperparameters
from yolo_core.losses import make_loss
from yolo_core.models import Detector, build_model

GOLDEN = Path(__file__).parents[2] / "golden"
HYP = Hyperparameters(box=0.05, obj=0.7, cls=0.3)
NAMES = ["yolov4-p5", "yolov4-p6", "yolov4-p7", "yolov7", "yolov7-w6"]


def hashed(count: int, seed: int) -> np.ndarray:
    """Numbers in [-2, 2) that look random, by integer arithmetic that is the same everywhere."""
    value = np.arange(count, dtype=np.uint64) + np.uint64(seed * 1_000_003 + 1)
    for factor in (2_654_435_761, 2_246_822_519):
        value = value * np.uint64(factor) % np.uint64(2**32)
        value ^= value >> np.uint64(15)
    return (value.astype(np.float64) / 2**30 - 2).astype(np.float32)


def made_up(model: Detector, batch: int, size: int, seed: int) -> list[Tensor]:
    """Raw maps, with auxiliary ones for a model that has the heads."""
    sets = 1 if model.auxiliary is None else 2
    maps = []
    for place, stride in enumerate(model.strides * sets):
        shape = (batch, len(model.anchors[0]), size // stride, size // stride, 5 + model.num_classes)
        values = hashed(int(np.prod(shape)), seed * 16 + place).reshape(shape)
        maps.append(torch.from_numpy(values).requires_grad_())
    return maps


def cases() -> list[tuple[str, int]]:
    return [(name, case) for name in NAMES for case in range(len(np.load(GOLDEN / f"losses-{name}.npz")["settings"]))]


@pytest.mark.parametrize(("name", "case"), cases())
def test_equals_the_original_implementation(name, case):
    stored = np.load(GOLDEN / f"losses-{name}.npz")
    classes, batch, size, seed = (int(value) for value in stored["settings"][case])
    model = build_model(name, classes, width=0.125)
    maps = made_up(model, batch, size, seed)
    loss, parts = make_loss(model, HYP, size=size)(maps, torch.from_numpy(stored[f"targets_{case}"]))
    loss.backward()
    gradient = sum(m.grad.abs().sum().item() for m in maps if m.grad is not None)
    found = [*(parts[part].item() for part in ("box", "obj", "cls")), loss.item(), gradient]
    assert found == pytest.approx(stored["expected"][case].tolist(), rel=1e-5)
