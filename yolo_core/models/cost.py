"""What a model costs: parameters and floating-point operations, counted from its graph without computing it."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from yolo_core.models.detector import Detector


@dataclass(frozen=True)
class Cost:
    """params: trainable numbers; gflops: 1e9 operations of one image's convolutions, a multiply-add counted as two."""

    params: int
    gflops: float


def cost(model: Detector, size: int) -> Cost:
    """The cost of `model` at a square input of `size` pixels. Allocates nothing; the model may lie on any device."""
    multiply_adds = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal multiply_adds
        assert isinstance(module, nn.Conv2d)
        multiply_adds += output[0].numel() * module.weight[0].numel()

    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, nn.Conv2d)]
    try:
        _run_without_memory(model, size)
    finally:
        for hook in hooks:
            hook.remove()
    return Cost(sum(p.numel() for p in model.parameters()), 2 * multiply_adds / 1e9)


@torch.no_grad()
def _run_without_memory(model: Detector, size: int) -> None:
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    shapes = {name: torch.empty_like(value, device="meta") for name, value in state.items()}
    images = torch.empty(2, 3, size, size, device="meta")  # two: normalisation in training mode refuses a single value
    torch.func.functional_call(model, shapes, images)
