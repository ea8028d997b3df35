"""Several workers on one model. Without an initialised process group every function is the single-worker case.

All distributed code of training is here. Worker 0 always belongs to the group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from yolo_core.train import sync_bn

T = TypeVar("T")

_group: dist.ProcessGroup | None = None  # the workers that train; None for all


def active() -> bool:
    """Whether there is a process group."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    return dist.get_rank(_group) if active() else 0


def world() -> int:
    return dist.get_world_size(_group) if active() else 1


def form_team(batch: int) -> bool:
    """Have only as many of the first workers train as share a batch evenly; returns whether this one does.

    Every worker must call it; those that do not train must call nothing else here.
    """
    global _group
    if not active():
        return True
    everyone = dist.get_world_size()
    size = max(number for number in range(1, everyone + 1) if batch % number == 0)
    group = dist.new_group(list(range(size))) if size < everyone else None
    _group = cast("dist.ProcessGroup | None", group)  # typed too widely there
    return dist.get_rank() < size


def is_main() -> bool:
    """Whether this worker is the one that writes files and records."""
    return rank() == 0


def synchronise_batch_norm(model: nn.Module, device: torch.device) -> None:
    """Have the BatchNorm layers of `model` take their statistics over all workers; their tensors stay the same."""
    if world() == 1:
        return
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(model, _group)  # replaces the layers inside, in place
    else:
        sync_bn.convert(model, _group)


def wrap(model: nn.Module, device: torch.device) -> nn.Module:
    """The model with gradients averaged over the workers; the model itself with a single worker."""
    if world() == 1:
        return model
    devices = [device.index or 0] if device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=devices, process_group=_group, gradient_as_bucket_view=True)


def gradients_stay_local(model: nn.Module) -> AbstractContextManager:
    """A backward pass under this context adds to the gradients without exchanging them."""
    return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()


def mean(tensor: Tensor) -> Tensor:
    """The mean of a tensor over the workers; a value that is not finite on one worker is not on any."""
    if world() == 1:
        return tensor
    total = tensor.clone()
    dist.all_reduce(total, group=_group)
    return total / world()


def any_of(flag: bool) -> bool:
    """Whether the flag is set on at least one worker; the same answer on all."""
    return flag if world() == 1 else any(gather(flag))


def gather(value: T) -> list[T]:
    """Each worker's value, in order of rank, on every worker."""
    if world() == 1:
        return [value]
    values = [value] * world()  # each is overwritten
    dist.all_gather_object(values, value, group=_group)
    return values


def from_main(make: Callable[[], T]) -> T:
    """What `make` returns on the main worker, on every worker; the others wait. An error there is raised on all."""
    if world() == 1:
        return make()
    outcome: list[Any] = [None, None]
    if is_main():
        try:
            outcome[0] = make()
        except Exception as error:  # the others must not wait forever
            outcome[1] = error
    dist.broadcast_object_list(outcome, src=0, group=_group)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def tensors_from_main(tensors: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """The main worker's named tensors on every worker, sent from and to `device`."""
    if world() == 1:
        return dict(tensors)
    shapes = from_main(lambda: {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()})
    received = {}
    for name, (shape, dtype) in shapes.items():
        here = tensors[name].to(device).contiguous() if is_main() else torch.empty(shape, dtype=dtype, device=device)
        dist.broadcast(here, src=0, group=_group)
        received[name] = here
    return received


def copy_from_main(tensors: Iterable[Tensor]) -> None:
    """Overwrite tensors with those of the main worker."""
    if world() == 1:
        return
    for tensor in tensors:
        dist.broadcast(tensor.detach(), src=0, group=_group)


def barrier() -> None:
    """Wait until every worker is here."""
    if world() > 1:
        dist.barrier(group=_group)
