"""Fine-tuning: start from the weights of another detector, and keep parts of the network as they are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from yolo_core.errors import BadArgument, UserError


@dataclass(frozen=True)
class Transfer:
    """What a model took over, as names of its state dict."""

    loaded: list[str]
    """Tensors copied."""
    fresh: list[str]
    """Tensors that keep their initial values, because the source has none of that name and shape."""
    unused: list[str]
    """Tensors of the source that fit nowhere."""

    def __str__(self) -> str:
        fresh = ", ".join(sorted({name.rsplit(".", 1)[0] for name in self.fresh})) or "none"
        return f"{len(self.loaded)} tensors loaded, {len(self.unused)} unused; re-initialised: {fresh}"


@torch.no_grad()
def transfer(model: nn.Module, source: Mapping[str, Tensor]) -> Transfer:
    """Copy every tensor of `source` that fits by name and shape into `model`, in place.

    A head for another number of classes does not fit and keeps its initial values.
    Raises UserError when less than half of the model's parameters are taken over: those are other weights.
    """
    own = model.state_dict()
    loaded = [name for name, value in own.items() if name in source and source[name].shape == value.shape]
    share = sum(own[name].numel() for name in loaded) / sum(value.numel() for value in own.values())
    if share < 0.5:
        raise UserError(f"these weights fit only {share:.0%} of the model; are they for this model and width?")
    for name in loaded:
        own[name].copy_(source[name])
    kept = set(loaded)
    return Transfer(loaded, [name for name in own if name not in kept], [name for name in source if name not in kept])


def freeze(model: nn.Module, parts: Sequence[str]) -> list[nn.Module]:
    """Keep the named parts out of training; returns them, to be held in evaluation mode for their statistics.

    parts: dotted names of modules, such as "body.stem". Raises BadArgument for "freeze", with the choices.
    """
    modules = dict(model.named_modules())
    given = f"= [{', '.join(parts)}]"
    for part in parts:
        if not part or part not in modules:
            raise BadArgument("freeze", f"{given}: no part {part!r}; the model has {', '.join(_choices(model))}")
        modules[part].requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise BadArgument("freeze", f"{given}: leaves nothing to train")
    return [modules[part] for part in parts]


def _choices(model: nn.Module) -> list[str]:
    return [f"{name}.{inner}" for name, child in model.named_children() for inner, _ in child.named_children()]
