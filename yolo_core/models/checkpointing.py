"""Activation checkpointing: recompute a module's activations in the backward pass instead of storing them."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def checkpointed(part: nn.Module, *inputs: Tensor) -> Any:
    """`part(*inputs)`, storing only the inputs for the backward pass; a plain call when gradients are disabled.

    Gradients and running statistics are those of a plain call. `part` must be deterministic.
    """
    if not torch.is_grad_enabled():
        return part(*inputs)
    return checkpoint(part, *inputs, use_reentrant=False, preserve_rng_state=False, context_fn=partial(_contexts, part))


def _contexts(part: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Contexts for the forward pass and for the recomputation."""
    return nullcontext(), _statistics_kept(part)


@contextmanager
def _statistics_kept(part: nn.Module) -> Iterator[None]:
    """Update copies of the running statistics: the originals have already been updated for this batch."""
    kept = [(layer, dict(layer._buffers)) for layer in part.modules() if isinstance(layer, _BatchNorm)]
    for layer, buffers in kept:
        layer._buffers.update({name: buffer.clone() for name, buffer in buffers.items() if buffer is not None})
    try:
        yield
    finally:
        for layer, buffers in kept:
            layer._buffers.update(buffers)
