"""SGD with Nesterov momentum over three groups of parameters: decayed weights, other weights, biases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd

from yolo_core.hyperparameters import Hyperparameters
from yolo_core.train.schedule import Values, full_accumulation

WEIGHTS, OTHERS, BIASES = 0, 1, 2  # indices of the groups in the optimizer


@dataclass
class Group:
    """Parameters that are updated alike."""

    parameters: list[nn.Parameter]
    lr: float
    momentum: float
    weight_decay: float


class NesterovSGD:
    """SGD with Nesterov momentum, fused: the same arithmetic as `torch.optim.SGD`, on each group by itself.

    That class imports the compiler at its first step, to exempt itself from it, which takes seconds.
    """

    # `torch.amp.GradScaler` leaves the division by its scale, and skipping a step that overflowed, to the fused kernel:
    # it sets `grad_scale` and `found_inf` for the time of a step.
    _step_supports_amp_scaling = True

    def __init__(self, groups: Sequence[Group]) -> None:
        self.groups = groups
        self.momentum: dict[nn.Parameter, Tensor] = {}
        """The momentum of each parameter that was updated, in its memory layout."""

    @property
    def param_groups(self) -> list[dict[str, list[nn.Parameter]]]:
        """The parameters, as optimizers of PyTorch list them."""
        return [{"params": group.parameters} for group in self.groups]

    @torch.no_grad()
    def step(self) -> None:
        """Update the parameters that have a gradient."""
        for group in self.groups:
            stepped = [parameter for parameter in group.parameters if parameter.grad is not None]
            buffers = [self.momentum.get(parameter) for parameter in stepped]
            sgd(
                list(stepped),
                [parameter.grad for parameter in stepped if parameter.grad is not None],
                buffers,
                fused=True,
                grad_scale=getattr(self, "grad_scale", None),
                found_inf=getattr(self, "found_inf", None),
                weight_decay=group.weight_decay,
                momentum=group.momentum,
                lr=group.lr,
                dampening=0.0,
                nesterov=True,
                maximize=False,
            )
            self.momentum.update((p, buffer) for p, buffer in zip(stepped, buffers, strict=True) if buffer is not None)

    def zero_grad(self) -> None:
        """Drop the gradients."""
        for group in self.groups:
            for parameter in group.parameters:
                parameter.grad = None


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


def build_optimizer(model: nn.Module, hyp: Hyperparameters, batch: int, nominal_batch: int) -> NesterovSGD:
    """Only convolution weights decay, by weight_decay x batch x accumulate / nominal batch."""
    decay = hyp.weight_decay * decay_scale(batch, nominal_batch)
    decays = (decay, 0.0, 0.0)
    pairs = zip(parameter_groups(model), decays, strict=True)
    return NesterovSGD([Group(parameters, hyp.lr0, hyp.momentum, decay) for parameters, decay in pairs])


def apply(optimizer: NesterovSGD, values: Values, weight_decay: float) -> None:
    """Set the scheduled values; `weight_decay` is that of the first group, already scaled."""
    for index, group in enumerate(optimizer.groups):
        group.lr = values.bias_lr if index == BIASES else values.lr
        group.momentum = values.momentum
    optimizer.groups[WEIGHTS].weight_decay = weight_decay


def momentum_state(optimizer: NesterovSGD, model: nn.Module) -> dict[str, Tensor]:
    """The momentum of each parameter by its name; parameters not stepped yet are left out."""
    return {name: optimizer.momentum[p] for name, p in model.named_parameters() if p in optimizer.momentum}


def load_momentum(optimizer: NesterovSGD, model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put back what `momentum_state` gave, in the memory layout of the parameters."""
    parameters = dict(model.named_parameters())
    for name, buffer in state.items():
        optimizer.momentum[parameters[name]] = torch.empty_like(parameters[name], requires_grad=False).copy_(buffer)
