"""Several workers on one model. Without an initialised process group every function is the single-worker case.

The rest of the training code asks here and holds no other distributed code.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from yolo_core.train import sync_bn

T = TypeVar("T")


def active() -> bool:
    """Whether a process group is there."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    return dist.get_rank() if active() else 0


def world() -> int:
    return dist.get_world_size() if active() else 1


def is_main() -> bool:
    """Whether this worker writes files and records."""
    return rank() == 0


def synchronise_batch_norm(model: nn.Module, device: torch.device) -> None:
    """Have the BatchNorm layers inside take their statistics over all workers; their tensors stay the same."""
    if world() == 1:
        return
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(model)  # replaces the layers inside, in place
    else:
        sync_bn.convert(model)


def wrap(model: nn.Module, device: torch.device) -> nn.Module:
    """The model with gradients averaged over the workers; itself when alone."""
    if world() == 1:
        return model
    devices = [device.index or 0] if device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=devices, gradient_as_bucket_view=True)


def gradients_stay_local(model: nn.Module) -> AbstractContextManager:
    """A backward pass under this context adds to the gradients without exchanging them."""
    return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()


def mean(tensor: Tensor) -> Tensor:
    """The mean of a tensor over the workers; a value that is not finite on one is so on all."""
    if world() == 1:
        return tensor
    total = tensor.clone()
    dist.all_reduce(total)
    return total / world()


def gather(value: T) -> list[T]:
    """Each worker's value, in order of rank, on every worker."""
    if world() == 1:
        return [value]
    values: list[Any] = [None] * world()
    dist.all_gather_object(values, value)
    return values


def from_main(make: Callable[[], T]) -> T:
    """What `make` gives on the main worker, on every worker; the others wait. An error there is raised on all."""
    if world() == 1:
        return make()
    outcome: list[Any] = [None, None]
    if is_main():
        try:
            outcome[0] = make()
        except Exception as error:  # the others must not wait for ever
            outcome[1] = error
    dist.broadcast_object_list(outcome, src=0)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def barrier() -> None:
    """Wait until every worker is here."""
    if world() > 1:
        dist.barrier()
