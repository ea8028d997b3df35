"""Weights by formula, so that a comparison with another implementation need not store them."""

import math
import zlib

import torch
from torch import Tensor, nn


@torch.no_grad()
def fill(model: nn.Module, size: int) -> None:
    """Draw every parameter and running statistic, in place, from a generator seeded by the CRC-32 of its name.

    Convolutions are normal with variance 2 / fan-in, normalisation has factors of 0.5 to 1.5 and shifts of standard
    deviation 0.1. Running means and variances are drawn the same way, in units of what each layer meets in a forward
    pass of `image(size)`: activations stay of the order of one at any depth.
    """
    for name, parameter in model.named_parameters():
        parameter.copy_(draw(name, parameter.shape))
    hooks = [
        layer.register_forward_pre_hook(_statistics(name))
        for name, layer in model.named_modules()
        if isinstance(layer, nn.BatchNorm2d)
    ]
    training = model.training
    model.eval()(image(size).to(next(model.parameters())))
    model.train(training)
    for hook in hooks:
        hook.remove()


def _statistics(name: str):
    def set_statistics(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        power = inputs[0].square().mean().double()
        mean, variance = layer.get_buffer("running_mean"), layer.get_buffer("running_var")
        mean.copy_(power.sqrt() * draw(f"{name}.running_mean", mean.shape))
        variance.copy_(power * draw(f"{name}.running_var.weight", variance.shape))

    return set_statistics


def draw(name: str, shape: torch.Size) -> Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    if name.endswith("implicit"):  # added to or multiplied with channels: near 0 or near 1
        return (".multiply." in name) + 0.1 * torch.randn(shape, generator=generator, dtype=torch.float64)
    fan_in = math.prod(shape[1:])
    if fan_in > 1:
        return torch.randn(shape, generator=generator, dtype=torch.float64) * math.sqrt(2 / fan_in)
    if name.endswith("weight"):
        return 0.5 + torch.rand(shape, generator=generator, dtype=torch.float64)
    return 0.1 * torch.randn(shape, generator=generator, dtype=torch.float64)


def image(size: int) -> Tensor:
    """An image of noise (1, 3, size, size), float64, 0 to 1."""
    return torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
