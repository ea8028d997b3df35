"""Predictors: callables from images to decoded boxes, plain or with test-time augmentation.

Every predictor (these two, ONNX, TensorRT) has the same interface, so the same code evaluates and times all of them:
`predictor(images)` takes (B, 3, H, W) float RGB in 0..1 and gives (B, N, 5+K): cx, cy, w, h px of the given canvas,
objectness, class probabilities.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from yolo_core.models.decode import decode
from yolo_core.models.detector import Detector

Predictor = Callable[[Tensor], Tensor]
GREY = 114 / 255  # padding, as of the letterbox


class Plain:
    """A detector as a predictor: evaluation mode, decoded."""

    def __init__(self, model: Detector) -> None:
        self.model = model.eval()

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        return decode(self.model(images), self.model)


class TTA:
    """Test-time augmentation: each canvas is seen at several scales, some mirrored, and all boxes are pooled.

    scales: factors of the canvas size; flips: "none" or "left-right", one per scale.
    N is the sum over the passes; NMS removes the duplicates afterwards.
    """

    def __init__(self, model: Detector, scales: Sequence[float], flips: Sequence[str]) -> None:
        self.plain = Plain(model)
        self.stride = model.input_stride
        self.passes = list(zip(scales, flips, strict=True))

    def __call__(self, images: Tensor) -> Tensor:
        return torch.cat([self._one(images, scale, flip == "left-right") for scale, flip in self.passes], 1)

    def _one(self, images: Tensor, scale: float, mirrored: bool) -> Tensor:
        canvas, factor = rescale(images.flip(3) if mirrored else images, scale, self.stride)
        found = self.plain(canvas).clone()
        found[..., :4] /= found.new_tensor((*factor, *factor))
        if mirrored:
            found[..., 0] = images.shape[3] - found[..., 0]
        return found


def rescale(images: Tensor, scale: float, stride: int) -> tuple[Tensor, tuple[float, float]]:
    """(B, 3, H, W) resized by `scale` and padded right and below with grey to multiples of `stride`.

    Returns the canvas and the exact factors (x, y) after rounding to whole pixels.
    """
    if scale == 1:
        return images, (1.0, 1.0)
    height, width = images.shape[2:]
    size = (max(1, int(height * scale)), max(1, int(width * scale)))
    small = functional.interpolate(images, size=size, mode="bilinear", align_corners=False)
    padding = (0, -size[1] % stride, 0, -size[0] % stride)
    return functional.pad(small, padding, value=GREY), (size[1] / width, size[0] / height)
