"""BatchNorm over all workers on any device; PyTorch's own SyncBatchNorm runs on CUDA only."""

from __future__ import annotations

from typing import Protocol, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn


class WorkersBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d whose training statistics are of the batches of all workers together.

    Every worker must bring a batch of the same shape.
    """

    group: dist.ProcessGroup | None
    """The workers; None for all."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        mean = _worker_mean(x.mean((0, 2, 3)), self.group)
        centred = x - mean[:, None, None]
        variance = _worker_mean(centred.square().mean((0, 2, 3)), self.group)
        self._update_statistics(
            mean.detach(), variance.detach(), x.numel() // x.shape[1] * dist.get_world_size(self.group)
        )
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(input.dtype)

    @torch.no_grad()
    def _update_statistics(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Update the running statistics, with the unbiased variance, as BatchNorm2d does."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (count / max(count - 1, 1)), self.momentum)
        self.num_batches_tracked.add_(1)


def convert(module: nn.Module, group: dist.ProcessGroup | None = None) -> None:
    """Turn every BatchNorm2d inside into a WorkersBatchNorm2d, in place: the two have the same state."""
    for layer in module.modules():
        if type(layer) is nn.BatchNorm2d:
            layer.__class__ = WorkersBatchNorm2d
            layer.__dict__["group"] = group


class _Context(Protocol):
    group: dist.ProcessGroup | None


class _WorkerMean(torch.autograd.Function):
    """The mean over workers, differentiable: each worker's gradient reaches every worker's input."""

    @staticmethod
    def forward(ctx: _Context, tensor: Tensor, group: dist.ProcessGroup | None) -> Tensor:
        ctx.group = group
        return _averaged(tensor, group)

    @staticmethod
    def backward(ctx: _Context, *gradients: Tensor) -> tuple[Tensor, None]:
        return _averaged(gradients[0], ctx.group), None


def _worker_mean(tensor: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    return cast(Tensor, _WorkerMean.apply(tensor, group))


def _averaged(tensor: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    total = tensor.contiguous().clone()
    dist.all_reduce(total, group=group)
    return total / dist.get_world_size(group)
