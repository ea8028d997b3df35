"""Darknet's residual blocks and their cross-stage partial forms (arXiv 1911.11929; 2011.08036, sections 4.1 and 4.3).

In a cross-stage partial (CSP) block half of the channels are computed and the other half bypass the computation. The
neck uses the reversed form: in each pair the 3x3 convolution comes last, and there is no residual.

Two variants are published. In Darknet's configurations each half ends in a convolution with its own normalisation and
activation. The authors' PyTorch for P5 to P7 normalises and activates the concatenated halves: equivalent in a stage,
but in the neck the computed half is normalised and activated a second time. Spatial pyramid pooling
concatenates the finest map last in the former and first in the latter.

Shapes: every block maps (B, c_in, H, W) to (B, c_out, H, W), a stage to (B, c_out, H/2, W/2).
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from yolo_core.models.blocks import BN_EPS, BN_MOMENTUM, Activation, ConvBnAct, Foldable, absorb
from yolo_core.models.norm_act import norm_act

Variant = Literal["darknet", "pytorch", "yolov7"]  # yolov7: as darknet, but the finest map first


class Residual(nn.Module):
    """A 1x1 convolution to `hidden` channels, a 3x3 convolution back, and a skip connection."""

    def __init__(self, channels: int, hidden: int, activation: Activation):
        super().__init__()
        self.squeeze = ConvBnAct(channels, hidden, 1, activation=activation)
        self.expand = ConvBnAct(hidden, channels, 3, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.expand(self.squeeze(x))


class DarknetStage(nn.Module):
    """A stage of Darknet53 (arXiv 1804.02767): downsampling, then residual blocks."""

    def __init__(self, c_in: int, c_out: int, repeats: int, activation: Activation):
        super().__init__()
        self.down = ConvBnAct(c_in, c_out, 3, 2, activation)
        self.blocks = nn.Sequential(*(Residual(c_out, c_out // 2, activation) for _ in range(repeats)))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.down(x))


class BnAct(nn.Module):
    """Normalisation and activation of the concatenated halves."""

    def __init__(self, channels: int, activation: Activation):
        super().__init__()
        self.bn = nn.BatchNorm2d(channels, eps=BN_EPS, momentum=BN_MOMENTUM)
        self.act = activation()

    def forward(self, x: Tensor) -> Tensor:
        return norm_act(x, self.bn, self.act)


def _ending(c_in: int, c_out: int, activation: Activation, variant: Variant) -> nn.Module:
    """The 1x1 convolution at the end of a half; the PyTorch variant normalises and activates after the join."""
    if variant == "pytorch":
        return nn.Conv2d(c_in, c_out, 1, bias=False)
    return ConvBnAct(c_in, c_out, 1, activation=activation)


def _join(channels: int, activation: Activation, variant: Variant) -> nn.Module:
    return BnAct(channels, activation) if variant == "pytorch" else nn.Identity()


class CspStage(Foldable):
    """A stage of CSPDarknet53, with the downsampling convolution before the split (arXiv 2011.08036, section 4.1)."""

    def __init__(self, c_in: int, c_out: int, repeats: int, activation: Activation, variant: Variant):
        super().__init__()
        half = c_out // 2
        self.down = ConvBnAct(c_in, c_out, 3, 2, activation)
        self.bypass = _ending(c_out, half, activation, variant)
        self.enter = ConvBnAct(c_out, half, 1, activation=activation)
        self.blocks = nn.Sequential(*(Residual(half, half, activation) for _ in range(repeats)))
        self.exit = _ending(half, half, activation, variant)
        self.join = _join(2 * half, activation, variant)
        self.merge = ConvBnAct(2 * half, c_out, 1, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(x)
        computed = self.exit(self.blocks(self.enter(x)))
        return self.merge(self.join(torch.cat((computed, self.bypass(x)), 1)))

    def fold(self) -> None:
        """Fold the normalisation after the join into the last convolution of each half, in place.

        The neck's blocks cannot be folded like this, because their computed half is activated before the join.
        """
        if not isinstance(self.join, BnAct):
            return
        assert isinstance(self.exit, nn.Conv2d)
        assert isinstance(self.bypass, nn.Conv2d)
        half = self.exit.out_channels
        absorb(self.exit, self.join.bn, slice(0, half))
        absorb(self.bypass, self.join.bn, slice(half, 2 * half))
        self.join = self.join.act


def darknet_stages(
    channels: Sequence[int], repeats: Sequence[int], first_csp: int, activation: Activation, variant: Variant
) -> nn.ModuleList:
    """The stages of a backbone.

    channels: of the input, then of each stage; repeats: residual blocks per stage; first_csp: index of the first CSP
    stage, the ones before it being plain.
    """
    stages = nn.ModuleList()
    for i, count in enumerate(repeats):
        c_in, c_out = channels[i : i + 2]
        if i < first_csp:
            stages.append(DarknetStage(c_in, c_out, count, activation))
        else:
            stages.append(CspStage(c_in, c_out, count, activation, variant))
    return stages


class DarknetPath(nn.Module):
    """The block of the plain neck: 1x1, then pairs of a 3x3 to twice the channels and a 1x1 back."""

    def __init__(self, c_in: int, c_out: int, repeats: int, activation: Activation):
        super().__init__()
        self.enter = ConvBnAct(c_in, c_out, 1, activation=activation)
        self.blocks = nn.Sequential()
        for _ in range(repeats):
            self.blocks.append(ConvBnAct(c_out, 2 * c_out, 3, activation=activation))
            self.blocks.append(ConvBnAct(2 * c_out, c_out, 1, activation=activation))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.enter(x))


class CspPath(nn.Module):
    """The reversed CSP block of the neck (arXiv 2011.08036, figure 2b): pairs of 1x1 and 3x3 of the output width."""

    def __init__(self, c_in: int, c_out: int, repeats: int, activation: Activation, variant: Variant):
        super().__init__()
        self.enter = ConvBnAct(c_in, c_out, 1, activation=activation)
        self.bypass = _ending(c_out, c_out, activation, variant)
        self.blocks = nn.Sequential()
        for _ in range(repeats):
            self.blocks.append(ConvBnAct(c_out, c_out, 1, activation=activation))
            self.blocks.append(ConvBnAct(c_out, c_out, 3, activation=activation))
        self.join = _join(2 * c_out, activation, variant)
        self.merge = ConvBnAct(2 * c_out, c_out, 1, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        return self.merge(self.join(torch.cat((self.blocks(x), self.bypass(x)), 1)))


class Pyramid(nn.Module):
    """Spatial pyramid pooling (arXiv 1406.4729): the map concatenated with its 5x5, 9x9 and 13x13 max pools.

    forward: (B, C, H, W) -> (B, 4 C, H, W). 5x5 pooling applied twice is 9x9, three times 13x13.
    """

    def __init__(self, variant: Variant):
        super().__init__()
        self.finest_first = variant != "darknet"
        self.pool = nn.MaxPool2d(5, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for _ in range(3):
            maps.append(self.pool(maps[-1]))
        return torch.cat(maps if self.finest_first else maps[::-1], 1)


class Spp(nn.Module):
    """First block of the plain neck (YOLOv3-SPP): three convolutions, pooling, three convolutions."""

    def __init__(self, c_in: int, c_out: int, activation: Activation):
        super().__init__()
        self.enter = ConvBnAct(c_in, c_out, 1, activation=activation)
        self.before = nn.Sequential(
            ConvBnAct(c_out, 2 * c_out, 3, activation=activation), ConvBnAct(2 * c_out, c_out, 1, activation=activation)
        )
        self.pyramid = Pyramid("darknet")
        self.after = nn.Sequential(
            ConvBnAct(4 * c_out, c_out, 1, activation=activation), ConvBnAct(c_out, 2 * c_out, 3, activation=activation)
        )
        self.merge = ConvBnAct(2 * c_out, c_out, 1, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        return self.merge(self.after(self.pyramid(self.before(self.enter(x)))))


class SppCsp(nn.Module):
    """First block of the CSP neck: spatial pyramid pooling in a CSP block (arXiv 2011.08036, section 4.1)."""

    def __init__(self, c_in: int, c_out: int, activation: Activation, variant: Variant):
        super().__init__()
        self.bypass = _ending(c_in, c_out, activation, variant)
        self.enter = ConvBnAct(c_in, c_out, 1, activation=activation)
        self.before = nn.Sequential(
            ConvBnAct(c_out, c_out, 3, activation=activation), ConvBnAct(c_out, c_out, 1, activation=activation)
        )
        self.pyramid = Pyramid(variant)
        self.after = nn.Sequential(
            ConvBnAct(4 * c_out, c_out, 1, activation=activation), ConvBnAct(c_out, c_out, 3, activation=activation)
        )
        self.join = _join(2 * c_out, activation, variant)
        self.merge = ConvBnAct(2 * c_out, c_out, 1, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        computed = self.after(self.pyramid(self.before(self.enter(x))))
        return self.merge(self.join(torch.cat((computed, self.bypass(x)), 1)))
