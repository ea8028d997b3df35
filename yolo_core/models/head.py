"""The detection head: one 1x1 convolution per level. Training and evaluation return the same raw maps."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from yolo_core.models.blocks import Foldable
from yolo_core.models.rep import ImplicitAdd, ImplicitMultiply, fold_implicit

OBJECTNESS, CLASSES = 4, 5  # rows of an anchor: x, y, w, h, objectness, one per class


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
        self.outputs = CLASSES + num_classes
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
        bias[:, OBJECTNESS] = math.log(8 / (640 / stride) ** 2)
        bias[:, CLASSES:] = math.log(0.6 / (self.outputs - CLASSES - 0.99))

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        levels = zip(self.add, self.levels, self.multiply, features, strict=True)
        return [self._map(multiply(conv(add(x)))) for add, conv, multiply, x in levels]

    def _map(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        return x.view(b, self.anchors_per_level, self.outputs, h, w).permute(0, 1, 3, 4, 2)

    @torch.no_grad()
    def copy_rows(self, source: "Head", classes: Mapping[int, int], boxes: bool) -> tuple[list[str], list[str]]:
        """Copy from `source`, a head for other classes, what does not depend on them and the rows of `classes`.

        In place. classes: own index -> index in `source`. boxes: whether to copy the rows of the boxes besides those
        of the objectness. Levels with other channels or another number of anchors keep their values.
        Returns the names in the state dict of the tensors copied whole and of those copied in part.
        """
        shared = list(range(0 if boxes else OBJECTNESS, CLASSES))
        ours = [*shared, *(CLASSES + index for index in classes)]
        theirs = [*shared, *(CLASSES + index for index in classes.values())]
        given, anchors = source.state_dict(), self.anchors_per_level
        whole, part = [], []
        for name, own in self.state_dict().items():
            kind, level, _ = name.split(".")
            if name not in given or not self._fits(source, int(level)):
                continue
            if kind == "add":
                own.copy_(given[name])
                whole.append(name)
            else:  # (anchors * outputs) in its first dimension longer than 1
                rows = given[name].reshape(anchors, source.outputs, -1)
                own.view(anchors, self.outputs, -1)[:, ours] = rows[:, theirs]
                part.append(name)
        return whole, part

    def _fits(self, source: "Head", level: int) -> bool:
        """Whether the level maps the same number of features to the same number of anchors in both heads."""
        if level >= len(source.levels) or self.anchors_per_level != source.anchors_per_level:
            return False
        ours, theirs = self.levels[level], source.levels[level]
        assert isinstance(ours, nn.Conv2d)
        assert isinstance(theirs, nn.Conv2d)
        return ours.in_channels == theirs.in_channels

    def fold(self) -> None:
        """Fold the implicit knowledge into the convolutions, in place."""
        for i, (add, conv, multiply) in enumerate(zip(self.add, self.levels, self.multiply, strict=True)):
            if isinstance(add, ImplicitAdd) and isinstance(multiply, ImplicitMultiply):
                assert isinstance(conv, nn.Conv2d)
                fold_implicit(add, conv, multiply)
                self.add[i], self.multiply[i] = nn.Identity(), nn.Identity()
