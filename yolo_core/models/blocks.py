"""Building blocks of the detectors. Shapes: B images, C channels, H/W cells."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

BN_EPS = 1e-3  # both from the authors' repository
BN_MOMENTUM = 0.03

Activation = Callable[[], nn.Module]


def leaky() -> nn.Module:
    """Darknet's leaky rectifier, slope 0.1."""
    return nn.LeakyReLU(0.1, inplace=True)


class Foldable(nn.Module):
    """A block that has a simpler equal for inference."""

    def fold(self) -> None:
        """Become that equal, in place; a second call changes nothing."""
        raise NotImplementedError


class ConvBnAct(Foldable):
    """Convolution without bias, batch normalisation, activation; keeps H and W when stride is 1."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int = 1, activation: Activation = leaky):
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(c_out, eps=BN_EPS, momentum=BN_MOMENTUM)
        self.act = activation()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))

    @torch.no_grad()
    def fold(self) -> None:
        """Move the running statistics and the affine part of the normalisation into the convolution, in place."""
        bn = self.bn
        if not isinstance(bn, nn.BatchNorm2d):
            return
        assert bn.running_mean is not None
        assert bn.running_var is not None
        scale = bn.weight.double() / torch.sqrt(bn.running_var.double() + bn.eps)
        weight = self.conv.weight.double() * scale[:, None, None, None]
        bias = bn.bias.double() - bn.running_mean.double() * scale
        self.conv.weight.copy_(weight)
        self.conv.bias = nn.Parameter(bias.to(self.conv.weight.dtype))
        self.bn = nn.Identity()


class CspOsa(nn.Module):
    """One-shot aggregation on half of the channels, the stage of yolov4-tiny (arXiv 2011.08036, section 3.3).

    A 3x3 convolution to `channels`; its second half runs through `layers` 3x3 convolutions whose outputs are
    concatenated and mixed by a 1x1 convolution. The other path crosses the stage untouched.
    forward: (B, c_in, H, W) -> stage output (B, 2 channels, H, W), mixed path (B, channels, H, W) for the neck.
    """

    def __init__(self, c_in: int, channels: int, layers: int = 2):
        super().__init__()
        growth = channels // 2
        self.growth = growth
        self.enter = ConvBnAct(c_in, channels, 3)
        self.layers = nn.ModuleList(ConvBnAct(growth, growth, 3) for _ in range(layers))
        self.mix = ConvBnAct(layers * growth, channels, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        entered = self.enter(x)
        grown = [entered[:, self.growth :]]
        for layer in self.layers:
            grown.append(layer(grown[-1]))
        mixed = self.mix(torch.cat(grown[:0:-1], 1))  # newest first, as Darknet's routes order them
        return torch.cat((entered, mixed), 1), mixed
