"""Batch normalisation and activation, fused when training on a CPU.

PyTorch runs the two in sequence and stores the input of each for the backward pass. The compiled version reads the
convolution's output twice (once for the moments, once to normalise and activate) and stores only that output; the
backward pass recomputes the normalised map. All other cases fall back to PyTorch: other devices, dtypes and layouts,
evaluation, batch statistics synchronised across workers, tracing and compiling.
"""

from functools import cache
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

_BLOCK = 16_384  # elements per block of rows: small enough to stay in the CPU cache between passes
_ELEMENTS: dict[torch.dtype, type] = {torch.float32: np.float32, torch.bfloat16: np.uint16}  # dtype in the loops


def norm_act(x: Tensor, bn: nn.Module, act: nn.Module) -> Tensor:
    """act(bn(x)), differentiable; updates the running statistics of `bn` in training. x: (B, C, H, W)."""
    kind = _kind(act)
    if kind is None or not _is_supported(x, bn):
        return act(bn(x))
    assert isinstance(bn, nn.BatchNorm2d)
    y, mean, variance = _NormAct.apply(x, bn.weight, bn.bias, bn.eps, kind)  # pyright: ignore[reportGeneralTypeIssues]
    _update_statistics(bn, mean, variance, x.numel() // x.shape[1])
    return y


class _Kind(NamedTuple):
    """An activation, as passed to the loops."""

    code: int
    slope: float


def _kind(act: nn.Module) -> _Kind | None:
    """None for an activation that the loops do not support."""
    if isinstance(act, nn.Mish):
        return _Kind(2, 0.0)
    if isinstance(act, nn.SiLU):
        return _Kind(1, 0.0)
    if isinstance(act, nn.LeakyReLU) and 0 <= act.negative_slope <= 1:
        return _Kind(0, act.negative_slope)
    return _Kind(0, 1.0) if isinstance(act, nn.Identity) else None


def _is_supported(x: Tensor, bn: nn.Module) -> bool:
    """Whether the loops support this case; the exact type check excludes tracers and fake tensors."""
    return (
        type(bn) is nn.BatchNorm2d
        and bn.training
        and bn.running_mean is not None
        and bn.momentum is not None
        and type(x) is Tensor
        and x.device.type == "cpu"
        and x.dtype in _ELEMENTS
        and bn.weight.dtype == torch.float32
        and x.numel() > x.shape[1]  # a single cell has no variance: let PyTorch raise its error
        and x.is_contiguous(memory_format=torch.channels_last)
        and not torch.compiler.is_compiling()
    )


@torch.no_grad()
def _update_statistics(bn: nn.BatchNorm2d, mean: Tensor, variance: Tensor, count: int) -> None:
    """Update the running statistics, with the unbiased variance, as PyTorch does."""
    assert bn.running_mean is not None
    assert bn.running_var is not None
    assert bn.num_batches_tracked is not None
    assert bn.momentum is not None
    bn.running_mean.lerp_(mean, bn.momentum)
    bn.running_var.lerp_(variance * (count / (count - 1)), bn.momentum)
    bn.num_batches_tracked.add_(1)


class _Context(FunctionCtx):
    """What the forward pass leaves to the backward pass."""

    saved_tensors: tuple[Tensor, ...]
    needs_input_grad: tuple[bool, ...]
    kind: _Kind


class _NormAct(torch.autograd.Function):
    """x (B, C, H, W), weight (C,), bias (C,), eps, kind -> y like x, mean (C,), biased variance (C,)."""

    @staticmethod
    def forward(
        ctx: _Context, x: Tensor, weight: Tensor, bias: Tensor, eps: float, kind: _Kind
    ) -> tuple[Tensor, Tensor, Tensor]:
        loops, runner = _loops(), _BlockRunner(x, kind)
        sums, squares = runner.run(loops.MOMENTS)
        mean, variance = loops.moments(sums, squares, runner.rows, runner.count)
        inverse = 1 / np.sqrt(variance + eps)
        scale = weight.detach().numpy() * inverse
        shift = bias.detach().numpy() - mean * scale
        mean, variance, inverse, scale, shift = (_tensor(a) for a in (mean, variance, inverse, scale, shift))
        y = torch.empty_like(x)
        runner.run(loops.FORWARD, scale=scale, shift=shift, y=y)
        ctx.save_for_backward(x, mean, inverse, scale, shift)
        ctx.kind = kind
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, inverse, scale, shift = ctx.saved_tensors
        loops, runner = _loops(), _BlockRunner(x, ctx.kind)
        g = _like(gradients[0], x)
        sums, products = runner.run(loops.GRADIENT_SUMS, scale=scale, shift=shift, mean=mean, g=g)
        d_bias, product = (torch.from_numpy(a) for a in loops.gradient_sums(sums, products))
        dx = None
        if ctx.needs_input_grad[0]:
            dx = torch.empty_like(x)
            per_x = -scale * inverse.double().square() * product / runner.count
            constant = -scale * d_bias / runner.count - per_x * mean
            per_channel = {"per_x": per_x.float(), "constant": constant.float()}
            runner.run(loops.BACKWARD, scale=scale, shift=shift, g=g, dx=dx, **per_channel)
        return dx, (product * inverse).float(), d_bias.float(), None, None


class _BlockRunner:
    """Processes the `count` rows of a map x in blocks of `rows`, on as many threads as PyTorch uses."""

    def __init__(self, x: Tensor, kind: _Kind):
        self.x = x
        self.channels = x.shape[1]
        self.count = x.numel() // self.channels
        self.rows = max(_BLOCK // self.channels, 8)
        self.slope = kind.slope
        self.numbers = {"rows": self.rows, "count": self.count, "channels": self.channels, "kind": kind.code}

    def run(self, operation: int, **tensors: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Run one of the operations of `norm_act_loops` on the tensors it needs; returns sums per block and channel."""
        loops = _loops()
        blocks = -(-self.count // self.rows)
        sums, others = np.empty((2, blocks, self.channels), np.float32)
        job: NDArray[np.void] = np.zeros(1, loops.JOB)
        numbers = {**self.numbers, "work": operation, "blocks": blocks, "stride": self.channels}
        if "g" in tensors:
            numbers["stride"] = tensors["g"].stride(3)
        addresses = {name: tensor.data_ptr() for name, tensor in {"x": self.x, **tensors}.items()}
        for name, value in {**numbers, **addresses, "sums": sums.ctypes.data, "others": others.ctypes.data}.items():
            job[name] = value
        job["slope"] = self.slope
        loops.run(job, _ELEMENTS[self.x.dtype])
        return sums, others


@cache
def _loops() -> ModuleType:
    """The compiled loops, imported lazily; see `yolo_core.compiled`."""
    from yolo_core.models import norm_act_loops

    return norm_act_loops


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))


def _like(gradient: Tensor, x: Tensor) -> Tensor:
    """The gradient in x's dtype and channels-last layout.

    Not copied when it is a slice of channels, such as the gradient of one input of a concatenation.
    """
    _, channels, height, width = x.shape
    row = gradient.stride(3)
    laid_out = gradient.stride() == (height * width * row, 1, width * row, row) and row >= channels
    if laid_out and gradient.dtype == x.dtype:
        return gradient
    dense = torch.empty_like(x)
    return dense.copy_(gradient)
