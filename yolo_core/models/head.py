"""The detection head: one 1x1 convolution per level, raw maps of one shape and meaning whatever the mode."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Head(nn.Module):
    """Raw maps from features.

    forward: features per level (B, C, H, W) -> per level (B, A, H, W, 5+K): raw x, y, w, h, objectness, classes.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], anchors_per_level: int, num_classes: int):
        super().__init__()
        self.anchors_per_level = anchors_per_level
        self.outputs = 5 + num_classes
        self.levels = nn.ModuleList(nn.Conv2d(c, anchors_per_level * self.outputs, 1) for c in channels)
        for conv, stride in zip(self.levels, strides, strict=True):
            assert isinstance(conv, nn.Conv2d)
            self._start_from_priors(conv, stride)

    @torch.no_grad()
    def _start_from_priors(self, conv: nn.Conv2d, stride: int) -> None:
        """Biases that begin training at the expected rates (focal loss, arXiv 1708.02002, section 3.3).

        8 objects in a 640 px image; 0.6 of the class probability shared by all classes.
        """
        assert conv.bias is not None
        bias = conv.bias.view(self.anchors_per_level, self.outputs)
        bias[:, 4] = math.log(8 / (640 / stride) ** 2)
        bias[:, 5:] = math.log(0.6 / (self.outputs - 5 - 0.99))

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        return [self._map(conv(x)) for conv, x in zip(self.levels, features, strict=True)]

    def _map(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        return x.view(b, self.anchors_per_level, self.outputs, h, w).permute(0, 1, 3, 4, 2)
