"""Building blocks of the detectors. Shapes: B images, C channels, H/W cells."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from yolo_core.models.norm_act import norm_act

BN_EPS = 1e-3  # both as in the authors' repository
BN_MOMENTUM = 0.03

Activation = Callable[[], nn.Module]


def leaky() -> nn.Module:
    """Darknet's leaky ReLU, slope 0.1."""
    return nn.LeakyReLU(0.1, inplace=True)


def mish() -> nn.Module:
    """x tanh(softplus(x)) (arXiv 1908.08681), the activation of yolov4-csp and the large models."""
    return nn.Mish()


def silu() -> nn.Module:
    """x sigmoid(x), the activation of YOLOv7."""
    return nn.SiLU()


class Foldable(nn.Module):
    """A block with a simpler equivalent for inference."""

    def fold(self) -> None:
        """Turn into that equivalent, in place. Idempotent."""
        raise NotImplementedError


class ConvBnAct(Foldable):
    """Convolution without bias, batch normalisation, activation. Stride 1 keeps H and W."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int = 1, activation: Activation = leaky):
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(c_out, eps=BN_EPS, momentum=BN_MOMENTUM)
        self.act = activation()

    def forward(self, x: Tensor) -> Tensor:
        return norm_act(self.conv(x), self.bn, self.act)

    def fold(self) -> None:
        """Fold the normalisation (running statistics and affine parameters) into the convolution, in place."""
        if isinstance(self.bn, nn.BatchNorm2d):
            absorb(self.conv, self.bn)
            self.bn = nn.Identity()


@torch.no_grad()
def absorb(conv: nn.Conv2d, bn: nn.BatchNorm2d, channels: slice = slice(None)) -> None:
    """Fold `channels` of `bn` into the convolution before it, which has no bias, in place."""
    assert bn.running_mean is not None
    assert bn.running_var is not None
    scale = (bn.weight.double() / torch.sqrt(bn.running_var.double() + bn.eps))[channels]
    bias = bn.bias.double()[channels] - bn.running_mean.double()[channels] * scale
    conv.weight.copy_(conv.weight.double() * scale[:, None, None, None])
    conv.bias = nn.Parameter(bias.to(conv.weight.dtype))


class CspOsa(nn.Module):
    """Partial one-shot aggregation, the stage of yolov4-tiny (arXiv 2011.08036, sections 3.2 and 4.2).

    A 3x3 convolution to `channels`, whose second half feeds a chain of `layers` 3x3 convolutions of the same width.
    The first `crossing` of the first half, the second half and the chain's outputs, in this order, bypass the stage,
    and a 1x1 convolution mixes the rest: COSA-1x3x, 2x2x and 3x1x in the paper bypass 1, 2 and 3 of four.
    forward: (B, c_in, H, W) -> stage output (B, 2 channels, H, W), mixed path (B, c_mixed, H, W) for the neck.
    """

    def __init__(self, c_in: int, channels: int, layers: int = 2, crossing: int = 2):
        super().__init__()
        growth = channels // 2
        layers = max(layers, crossing - 1)  # leave at least one to mix
        self.crossing = crossing
        self.c_mixed = (4 - crossing) * growth
        self.enter = ConvBnAct(c_in, channels, 3)
        self.layers = nn.ModuleList(ConvBnAct(growth, growth, 3) for _ in range(layers))
        self.mix = ConvBnAct((2 + layers - crossing) * growth, self.c_mixed, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        grown = list(self.enter(x).chunk(2, 1))
        for layer in self.layers:
            grown.append(layer(grown[-1]))
        mixed = self.mix(torch.cat(grown[: self.crossing - 1 : -1], 1))  # newest first, like Darknet's routes
        return torch.cat((*grown[: self.crossing], mixed), 1), mixed
