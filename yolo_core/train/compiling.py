"""torch.compile, for those machines that can."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)


class Compiled(nn.Module):
    """`module` by torch.compile; where that fails, as without a C++ compiler, the module itself after one warning.

    dynamic: whether to compile for any height and width at once, not anew for each.
    """

    def __init__(self, module: nn.Module, dynamic: bool):
        super().__init__()
        self.module = module
        self._compiled: Any = torch.compile(module, dynamic=dynamic)
        from torch._dynamo.exc import TorchDynamoException  # takes a second to import

        self._failure = TorchDynamoException  # of the compiler's parts and backends as well

    def forward(self, images: Tensor) -> Any:
        if self._compiled is None:
            return self.module(images)
        try:
            with _backward_compiled_at_once():
                return self._compiled(images)
        except self._failure as error:
            first = str(error).strip().partition("\n")[0]
            log.warning("train.compile: going on without, torch.compile failed: %s", first)
            self._compiled = None
            return self.module(images)


def _backward_compiled_at_once() -> Any:
    """Have the backward pass fail to compile here, where there is a way out, not in the middle of itself."""
    import torch._functorch.config as config

    return config.patch(force_non_lazy_backward_lowering=True)
