"""Planned re-parameterised convolution and implicit knowledge: extra parameters in training, the same deployed graph.

Sources: arXiv 2207.02696, sections 4.1 and 4.3; RepVGG, arXiv 2101.03697; YOLOR, arXiv 2105.04206.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from yolo_core.models.blocks import Activation, ConvBnAct, Foldable, silu

IMPLICIT_STD = 0.02  # standard deviation of the normal initialisation, as in the authors' repository


class RepConv(Foldable):
    """The sum of a 3x3 and a 1x1 convolution in training, a single 3x3 convolution when folded.

    Has no identity branch (RepConvN in the paper): YOLOv7 uses the block after a concatenation or residual, where the
    branch would duplicate an existing path (section 4.1).
    forward: (B, c_in, H, W) -> (B, c_out, H, W).
    """

    def __init__(self, c_in: int, c_out: int, activation: Activation = silu):
        super().__init__()
        self.dense = ConvBnAct(c_in, c_out, 3, activation=nn.Identity)
        self.pointwise: ConvBnAct | None = ConvBnAct(c_in, c_out, 1, activation=nn.Identity)
        self.act = activation()

    def forward(self, x: Tensor) -> Tensor:
        y = self.dense(x)
        return self.act(y if self.pointwise is None else y + self.pointwise(x))

    @torch.no_grad()
    def silence_pointwise(self) -> None:
        """Zero the 1x1 branch, for weights that have it folded in; training can revive it."""
        if self.pointwise is not None:
            self.pointwise.conv.weight.zero_()
            if isinstance(self.pointwise.bn, nn.BatchNorm2d):
                self.pointwise.bn.reset_parameters()

    @torch.no_grad()
    def fold(self) -> None:
        """Fold both normalisations, then add the 1x1 kernel to the centre of the 3x3 kernel, in place."""
        self.dense.fold()
        if self.pointwise is None:
            return
        self.pointwise.fold()
        dense, pointwise = self.dense.conv, self.pointwise.conv
        assert dense.bias is not None
        assert pointwise.bias is not None
        dense.weight += F.pad(pointwise.weight, (1, 1, 1, 1))
        dense.bias += pointwise.bias
        self.pointwise = None


class Implicit(nn.Module):
    """Learned per-channel values that do not depend on the input (section 4.3), initialised near `neutral`."""

    neutral: float

    def __init__(self, channels: int):
        super().__init__()
        self.implicit = nn.Parameter(torch.empty(1, channels, 1, 1))
        nn.init.normal_(self.implicit, self.neutral, IMPLICIT_STD)

    def reset_to_neutral(self) -> None:
        """Make the layer an identity, for weights that have it folded in."""
        nn.init.constant_(self.implicit, self.neutral)


class ImplicitAdd(Implicit):
    """Adds a learned value to each channel: (B, C, H, W) -> (B, C, H, W)."""

    neutral = 0.0

    def forward(self, x: Tensor) -> Tensor:
        return x + self.implicit


class ImplicitMultiply(Implicit):
    """Multiplies each channel by a learned factor: (B, C, H, W) -> (B, C, H, W)."""

    neutral = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return x * self.implicit


@torch.no_grad()
def fold_implicit(add: ImplicitAdd, conv: nn.Conv2d, multiply: ImplicitMultiply) -> None:
    """Fold `add` before and `multiply` after the 1x1 convolution `conv` into it, in place.

    m (W (x + a) + b) = (m W) x + m (W a + b).
    """
    assert conv.bias is not None
    factor = multiply.implicit.double().flatten()
    weight = conv.weight.double().flatten(1)
    conv.bias.copy_(factor * (weight @ add.implicit.double().flatten() + conv.bias.double()))
    conv.weight.copy_((factor[:, None] * weight).view_as(conv.weight))
