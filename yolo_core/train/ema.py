"""An exponential moving average of a model's weights: the weights that are evaluated and shipped."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


class EMA(Generic[M]):
    """Holds `.module`, a frozen copy of `model` that `update` pulls towards the model.

    Floating-point parameters and buffers are averaged, in the float32 that training keeps them in; counters are
    copied.
    """

    def __init__(self, model: M):
        self.module: M = copy.deepcopy(model).eval().requires_grad_(False)
        self._averages, self._counters = _split(self.module)
        self._sources, self._source_counters = _split(model)

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """average = decay x average + (1 - decay) x model, in place, in one pass over all tensors."""
        torch._foreach_lerp_(self._averages, self._sources, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]
        if self._counters:
            torch._foreach_copy_(self._counters, self._source_counters)  # pyright: ignore[reportPrivateImportUsage]


def _split(model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """The tensors of the model's state without their gradients: (floating-point, others)."""
    tensors = [tensor.detach() for tensor in model.state_dict(keep_vars=True).values()]
    return [t for t in tensors if t.is_floating_point()], [t for t in tensors if not t.is_floating_point()]
