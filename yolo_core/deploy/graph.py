"""What all exported graphs share: decoded boxes as output, metadata, optional packages.

Input: `images` (batch, 3, H, W) float32 RGB, 0..1, H and W fixed at export, batch free.
Output: `predictions` (batch, N, 5+K): cx, cy, w, h px, objectness, class probabilities.
"""

import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import TypedDict

import numpy as np
from torch import Tensor, nn

from yolo_core.errors import UserError
from yolo_core.models.decode import decode
from yolo_core.models.detector import Detector


class Facts(TypedDict):
    """The metadata of a file."""

    model: str
    """Name of the model."""

    classes: list[str]
    """Class names by index."""

    size: int
    """H = W, px."""

    strides: list[int]
    """Strides of the detection levels, px."""

    anchors: list[list[list[float]]]
    """(L, A, 2): w and h in px at `size`."""


class Decoded(nn.Module):
    """A detector that outputs decoded boxes, for export. half: float16 inside, float32 input and output."""

    def __init__(self, model: Detector, half: bool = False) -> None:
        super().__init__()
        self.model = model
        self.half_precision = half

    def forward(self, images: Tensor) -> Tensor:
        return decode(self.model(images.half() if self.half_precision else images), self.model)


def facts(model: Detector, classes: Sequence[str], size: int) -> Facts:
    """The metadata of a file; size: H = W in px."""
    return {
        "model": model.spec.name,
        "classes": list(classes),
        "size": size,
        "strides": list(model.strides),
        "anchors": model.anchors.tolist(),
    }


def planes(images: Tensor) -> np.ndarray:
    """(B, 3, H, W) float32, contiguous in this order, for a runtime on the CPU.

    NumPy does the copy: PyTorch's threads would keep spinning and compete with those of the runtime.
    """
    return np.ascontiguousarray(images.float().cpu().numpy())


def package(name: str, extra: str) -> ModuleType:
    """An optional package; UserError naming our extra that installs it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(f"{name}: not installed ({error}); pip install 'scaled-yolov4[{extra}]'") from None
