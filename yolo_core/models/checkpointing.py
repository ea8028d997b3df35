"""Activation checkpointing: recompute a part's activations in the backward pass instead of keeping them."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def checkpointed(part: nn.Module, *inputs: Tensor) -> Any:
    """`part(*inputs)`, of which only the inputs are kept for the backward pass; without gradients a plain call.

    Gradients and the running statistics of normalisation are those of the plain call. `part` must not be random.
    """
    if not torch.is_grad_enabled():
        return part(*inputs)
    return checkpoint(part, *inputs, use_reentrant=False, preserve_rng_state=False, context_fn=partial(_contexts, part))


def _contexts(part: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """What surrounds the computation and the recomputation."""
    return nullcontext(), _statistics_kept(part)


@contextmanager
def _statistics_kept(part: nn.Module) -> Iterator[None]:
    """Let normalisation move copies of its running statistics: the layers' own have moved for this batch already."""
    kept = [(layer, dict(layer._buffers)) for layer in part.modules() if isinstance(layer, _BatchNorm)]
    for layer, buffers in kept:
        layer._buffers.update({name: buffer.clone() for name, buffer in buffers.items() if buffer is not None})
    try:
        yield
    finally:
        for layer, buffers in kept:
            layer._buffers.update(buffers)
