"""SGD with Nesterov momentum over three groups of parameters: decayed weights, other weights, biases."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import SGD

from yolo_core.hyperparameters import Hyperparameters
from yolo_core.train.schedule import Values, full_accumulation

WEIGHTS, OTHERS, BIASES = 0, 1, 2  # places of the groups in the optimizer


def parameter_groups(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    """Weights of convolutions and linear layers; others: BatchNorm weights, implicit knowledge; all biases."""
    weights, others, biases = [], [], []
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if name == "bias":
                biases.append(parameter)
            elif name == "weight" and isinstance(module, nn.Conv2d | nn.Linear):
                weights.append(parameter)
            else:
                others.append(parameter)
    return weights, others, biases


def decay_scale(batch: int, nominal_batch: int) -> float:
    """Weight decay is given for the nominal batch; it follows the images that one update really sees."""
    return batch * full_accumulation(batch, nominal_batch) / nominal_batch


def build_optimizer(model: nn.Module, hyp: Hyperparameters, batch: int, nominal_batch: int) -> SGD:
    """One fused SGD; only convolution weights decay, by weight_decay x batch x accumulate / nominal batch."""
    weights, others, biases = parameter_groups(model)
    decay = hyp.weight_decay * decay_scale(batch, nominal_batch)
    groups = [
        {"params": weights, "weight_decay": decay},
        {"params": others, "weight_decay": 0.0},
        {"params": biases, "weight_decay": 0.0},
    ]
    return SGD(groups, lr=hyp.lr0, momentum=hyp.momentum, nesterov=True, fused=True)


def apply(optimizer: SGD, values: Values, weight_decay: float) -> None:
    """Set the scheduled values; `weight_decay` is that of the first group, already scaled."""
    for place, group in enumerate(optimizer.param_groups):
        group["lr"] = values.bias_lr if place == BIASES else values.lr
        group["momentum"] = values.momentum
    optimizer.param_groups[WEIGHTS]["weight_decay"] = weight_decay


def momentum_state(optimizer: SGD, model: nn.Module) -> dict[str, Tensor]:
    """The momentum of each parameter by its name; parameters not stepped yet are left out."""
    stepped = [(name, p) for name, p in model.named_parameters() if p in optimizer.state]
    buffers = {name: optimizer.state[p].get("momentum_buffer") for name, p in stepped}
    return {name: buffer for name, buffer in buffers.items() if buffer is not None}


def load_momentum(optimizer: SGD, model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put back what `momentum_state` gave, in the memory layout of the parameters."""
    parameters = dict(model.named_parameters())
    for name, buffer in state.items():
        own = torch.empty_like(parameters[name]).copy_(buffer)
        optimizer.state[parameters[name]]["momentum_buffer"] = own
