"""The detection head: one 1x1 convolution per level. Training and evaluation return the same raw maps."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from yolo_core.models.blocks import Foldable
from yolo_core.models.rep import ImplicitAdd, ImplicitMultiply, fold_implicit


class Head(Foldable):
    """Raw maps from features.

    implicit: add learned values to the features and multiply the maps by learned factors (implicit knowledge, arXiv
        2207.02696, section 4.3); folding absorbs both into the convolutions.
    forward: features per level (B, C, H, W) -> per level (B, A, H, W, 5+K): raw x, y, w, h, objectness, classes.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        anchors_per_level: int,
        num_classes: int,
        implicit: bool = False,
    ):
        super().__init__()
        self.anchors_per_level = anchors_per_level
        self.outputs = 5 + num_classes
        maps = anchors_per_level * self.outputs
        self.add = nn.ModuleList(ImplicitAdd(c) if implicit else nn.Identity() for c in channels)
        self.levels = nn.ModuleList(nn.Conv2d(c, maps, 1) for c in channels)
        self.multiply = nn.ModuleList(ImplicitMultiply(maps) if implicit else nn.Identity() for _ in channels)
        for conv, stride in zip(self.levels, strides, strict=True):
            assert isinstance(conv, nn.Conv2d)
            self._start_from_priors(conv, stride)

    @torch.no_grad()
    def _start_from_priors(self, conv: nn.Conv2d, stride: int) -> None:
        """Initialise biases to prior probabilities (focal loss, arXiv 1708.02002, section 3.3).

        8 objects per 640 px image; a class probability of 0.6 split between all classes.
        """
        assert conv.bias is not None
        bias = conv.bias.view(self.anchors_per_level, self.outputs)
        bias[:, 4] = math.log(8 / (640 / stride) ** 2)
        bias[:, 5:] = math.log(0.6 / (self.outputs - 5 - 0.99))

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        levels = zip(self.add, self.levels, self.multiply, features, strict=True)
        return [self._map(multiply(conv(add(x)))) for add, conv, multiply, x in levels]

    def _map(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        return x.view(b, self.anchors_per_level, self.outputs, h, w).permute(0, 1, 3, 4, 2)

    def fold(self) -> None:
        """Fold the implicit knowledge into the convolutions, in place."""
        for i, (add, conv, multiply) in enumerate(zip(self.add, self.levels, self.multiply, strict=True)):
            if isinstance(add, ImplicitAdd) and isinstance(multiply, ImplicitMultiply):
                assert isinstance(conv, nn.Conv2d)
                fold_implicit(add, conv, multiply)
                self.add[i], self.multiply[i] = nn.Identity(), nn.Identity()
