"""ELAN blocks and the transitions between them in YOLOv7 (arXiv 2207.02696, section 3).

Shapes: blocks keep H and W; transitions halve them.
"""

import torch
from torch import Tensor, nn

from yolo_core.models.blocks import Activation, ConvBnAct
from yolo_core.models.csp import Pyramid


class Elan(nn.Module):
    """Efficient layer aggregation network (section 3.1, figure 2c).

    Two 1x1 convolutions to `width` channels, the second followed by a chain of `layers` 3x3 convolutions to `growth`
    channels. A 1x1 convolution merges the outputs of both and of every `every`-th convolution of the chain.
    forward: (B, c_in, H, W) -> (B, c_out, H, W).
    """

    def __init__(self, c_in: int, width: int, growth: int, c_out: int, layers: int, every: int, activation: Activation):
        super().__init__()
        self.every = every
        self.bypass = ConvBnAct(c_in, width, 1, activation=activation)
        self.enter = ConvBnAct(c_in, width, 1, activation=activation)
        inputs = [width, *[growth] * (layers - 1)]
        self.layers = nn.ModuleList(ConvBnAct(c, growth, 3, activation=activation) for c in inputs)
        self.merge = ConvBnAct(2 * width + layers // every * growth, c_out, 1, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        bypass, row = self.bypass(x), [self.enter(x)]
        for layer in self.layers:
            row.append(layer(row[-1]))
        return self.merge(torch.cat((*row[:: self.every][::-1], bypass), 1))  # newest first, as in the authors' code

    def branches(self, x: Tensor) -> list[Tensor]:
        """The only branch; see `ExtendedElan`."""
        return [self(x)]


class ExtendedElan(nn.Module):
    """Extended ELAN (E-ELAN, section 3.1, figure 2d): the sum of parallel blocks on the same input.

    Equivalent to the paper's grouped convolutions with shuffle and merge, without the groups.
    """

    def __init__(self, *blocks: Elan):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        return add_up(self.branches(x))

    def branches(self, x: Tensor) -> list[Tensor]:
        """The outputs of the blocks, before summation."""
        return [block(x) for block in self.blocks]


def add_up(branches: list[Tensor]) -> Tensor:
    """The sum of one or more tensors of the same shape."""
    return sum(branches[1:], start=branches[0])


class DualDown(nn.Module):
    """A transition with two paths: max pooling and 1x1 convolution; 1x1 convolution and strided 3x3 convolution.

    hidden: channels between the convolutions of the second path.
    forward: (B, c_in, 2H, 2W) -> (B, 2 half, H, W).
    """

    def __init__(self, c_in: int, hidden: int, half: int, activation: Activation):
        super().__init__()
        self.pool = nn.MaxPool2d(2)
        self.pooled = ConvBnAct(c_in, half, 1, activation=activation)
        self.reduce = ConvBnAct(c_in, hidden, 1, activation=activation)
        self.strided = ConvBnAct(hidden, half, 3, 2, activation)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((self.strided(self.reduce(x)), self.pooled(self.pool(x))), 1)


class MpConv(DualDown):
    """The narrow form, used by yolov7."""

    def __init__(self, c_in: int, half: int, activation: Activation):
        super().__init__(c_in, half, half, activation)


class DownC(DualDown):
    """The wide form, used by yolov7-e6 and larger."""

    def __init__(self, c_in: int, half: int, activation: Activation):
        super().__init__(c_in, c_in, half, activation)


class LeanSppCsp(nn.Module):
    """Spatial pyramid pooling in a CSP block without 3x3 convolutions, used by yolov7-tiny.

    forward: (B, c_in, H, W) -> (B, c_out, H, W).
    """

    def __init__(self, c_in: int, c_out: int, activation: Activation):
        super().__init__()
        self.bypass = ConvBnAct(c_in, c_out, 1, activation=activation)
        self.enter = ConvBnAct(c_in, c_out, 1, activation=activation)
        self.pyramid = Pyramid("darknet")
        self.after = ConvBnAct(4 * c_out, c_out, 1, activation=activation)
        self.merge = ConvBnAct(2 * c_out, c_out, 1, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        return self.merge(torch.cat((self.after(self.pyramid(self.enter(x))), self.bypass(x)), 1))


class ReOrg(nn.Module):
    """Space to depth, 2x2 pixels to channels: (B, C, 2H, 2W) -> (B, 4C, H, W).

    Order: C channels of the upper left pixels, then lower left, upper right and lower right.
    """

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x[..., row::2, column::2] for column in (0, 1) for row in (0, 1)], 1)
