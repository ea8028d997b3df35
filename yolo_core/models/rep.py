"""Planned re-parameterised convolution and implicit knowledge: more parameters in training, the same deployed graph.

Sources: arXiv 2207.02696, sections 4.1 and 4.3; RepVGG, arXiv 2101.03697; YOLOR, arXiv 2105.04206.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from yolo_core.models.blocks import Activation, ConvBnAct, Foldable, silu

IMPLICIT_STD = 0.02  # of the normal distribution that implicit knowledge starts from, as in the authors' repository


class RepConv(Foldable):
    """A 3x3 and a 1x1 convolution added up in training, one 3x3 convolution when folded.

    There is no identity branch (the paper's RepConvN): behind a concatenation or a residual it would repeat a path
    that is there already, and that is where YOLOv7 places the block (section 4.1).
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
        """Make the 1x1 branch answer zero, for weights that have it folded in; training may wake it again."""
        if self.pointwise is not None:
            self.pointwise.conv.weight.zero_()
            if isinstance(self.pointwise.bn, nn.BatchNorm2d):
                self.pointwise.bn.reset_parameters()

    @torch.no_grad()
    def fold(self) -> None:
        """Add the 1x1 kernel to the centre of the 3x3 kernel, both with their normalisation folded in, in place."""
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
    """Learned values of the channels that belong to no input (section 4.3). They start near `neutral`."""

    neutral: float

    def __init__(self, channels: int):
        super().__init__()
        self.implicit = nn.Parameter(torch.empty(1, channels, 1, 1))
        nn.init.normal_(self.implicit, self.neutral, IMPLICIT_STD)

    def reset_to_neutral(self) -> None:
        """Change nothing from now on, as in weights made for inference."""
        nn.init.constant_(self.implicit, self.neutral)


class ImplicitAdd(Implicit):
    """Adds to the channels: (B, C, H, W) -> (B, C, H, W)."""

    neutral = 0.0

    def forward(self, x: Tensor) -> Tensor:
        return x + self.implicit


class ImplicitMultiply(Implicit):
    """Multiplies the channels: (B, C, H, W) -> (B, C, H, W)."""

    neutral = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return x * self.implicit


@torch.no_grad()
def fold_implicit(add: ImplicitAdd, conv: nn.Conv2d, multiply: ImplicitMultiply) -> None:
    """Make the 1x1 convolution `conv`, in place, compute what the three do in a row.

    m (W (x + a) + b) = (m W) x + m (W a + b).
    """
    assert conv.bias is not None
    factor = multiply.implicit.double().flatten()
    weight = conv.weight.double().flatten(1)
    conv.bias.copy_(factor * (weight @ add.implicit.double().flatten() + conv.bias.double()))
    conv.weight.copy_((factor[:, None] * weight).view_as(conv.weight))
