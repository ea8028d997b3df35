"""torch.compile, on machines where it works."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)


class Compiled(nn.Module):
    """`module` through torch.compile; where that fails, as without a C++ compiler, the module itself, with a warning.

    dynamic: whether to compile once for any height and width instead of once for each.
    """

    def __init__(self, module: nn.Module, dynamic: bool):
        super().__init__()
        self.module = module
        if torch.are_deterministic_algorithms_enabled():  # tells the compiler, too
            torch.use_deterministic_algorithms(True, warn_only=torch.is_deterministic_algorithms_warn_only_enabled())
        self._compiled: Callable[[Tensor], list[Tensor]] | None = torch.compile(module, dynamic=dynamic)
        from torch._dynamo.exc import TorchDynamoException  # takes a second to import

        self._failure = TorchDynamoException  # includes failures of backends

    def forward(self, images: Tensor) -> list[Tensor]:
        if self._compiled is None:
            return self.module(images)
        try:
            with _backward_compiled_at_once():
                return self._compiled(images)
        except self._failure as error:
            first = str(error).strip().partition("\n")[0]
            log.warning("torch.compile failed, continuing without it: %s", first)
            self._compiled = None
            return self.module(images)


def _backward_compiled_at_once() -> AbstractContextManager[object]:
    """Compile the backward pass with the forward pass, so that it fails where the fallback is."""
    import torch._functorch.config as config

    return config.patch(force_non_lazy_backward_lowering=True)
