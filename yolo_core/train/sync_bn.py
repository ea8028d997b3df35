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

    team: dist.ProcessGroup | None
    """The workers; None for all."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        mean = _worker_mean(x.mean((0, 2, 3)), self.team)
        centred = x - mean[:, None, None]
        variance = _worker_mean(centred.square().mean((0, 2, 3)), self.team)
        self._remember(mean.detach(), variance.detach(), x.numel() // x.shape[1] * dist.get_world_size(self.team))
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(input.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Move the running statistics; the variance kept is the unbiased one, as in BatchNorm2d."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (count / max(count - 1, 1)), self.momentum)
        self.num_batches_tracked.add_(1)


def convert(module: nn.Module, team: dist.ProcessGroup | None = None) -> None:
    """Turn every BatchNorm2d inside into a WorkersBatchNorm2d, in place: the two have the same state."""
    for layer in module.modules():
        if type(layer) is nn.BatchNorm2d:
            layer.__class__ = WorkersBatchNorm2d
            layer.__dict__["team"] = team


class _Context(Protocol):
    team: dist.ProcessGroup | None


class _WorkerMean(torch.autograd.Function):
    """The mean over workers, differentiable: each worker's gradient reaches every worker's input."""

    @staticmethod
    def forward(ctx: _Context, tensor: Tensor, team: dist.ProcessGroup | None) -> Tensor:
        ctx.team = team
        return _averaged(tensor, team)

    @staticmethod
    def backward(ctx: _Context, *gradients: Tensor) -> tuple[Tensor, None]:
        return _averaged(gradients[0], ctx.team), None


def _worker_mean(tensor: Tensor, team: dist.ProcessGroup | None) -> Tensor:
    return cast(Tensor, _WorkerMean.apply(tensor, team))


def _averaged(tensor: Tensor, team: dist.ProcessGroup | None) -> Tensor:
    total = tensor.contiguous().clone()
    dist.all_reduce(total, group=team)
    return total / dist.get_world_size(team)
