"""Fine-tuning: start from the weights of another detector, and keep parts of the network as they are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from yolo_core.errors import BadArgument, UserError
from yolo_core.models import Detector
from yolo_core.models.weights import LoadedDetector

CLASSES_SHOWN = 5


@dataclass(frozen=True)
class HeadRows:
    """What a model took over from heads for other classes."""

    tensors: list[str]
    """Tensors copied in part: the rows for objectness, `boxes` and `classes`."""
    boxes: bool
    """Whether the rows for boxes are among them; not if the source codes boxes differently."""
    classes: list[str]
    """Classes of both detectors."""
    fresh: list[str]
    """Classes whose rows keep their initial values."""

    def __str__(self) -> str:
        shared = "boxes, objectness" if self.boxes else "objectness"
        count = f"{len(self.classes)} of {len(self.classes) + len(self.fresh)} classes"
        return f"{shared} and {count}" + (f" ({_shortened(self.classes)})" if self.classes else "")


@dataclass(frozen=True)
class Transfer:
    """What a model took over, as names of its state dict."""

    loaded: list[str]
    """Tensors copied."""
    fresh: list[str]
    """Tensors that keep their initial values, because the source has none of that name and shape."""
    unused: list[str]
    """Tensors of the source that fit nowhere."""
    head: HeadRows | None = None
    """Rows copied from heads for other classes; None where the heads were copied whole or not at all."""

    def __str__(self) -> str:
        fresh = ", ".join(sorted({name.rsplit(".", 1)[0] for name in self.fresh}))
        rows = f"; head: {self.head} loaded" if self.head else ""
        if self.head and self.head.fresh:
            fresh += ("; " if fresh else "") + f"classes {_shortened(self.head.fresh)}"
        loaded = f"{len(self.loaded)} tensors loaded, {len(self.unused)} unused"
        return f"{loaded}{rows}; re-initialised: {fresh or 'none'}"


def _shortened(classes: list[str]) -> str:
    return ", ".join(classes[:CLASSES_SHOWN]) + (", ..." if len(classes) > CLASSES_SHOWN else "")


def take_over(model: Detector, source: LoadedDetector, classes: list[str]) -> Transfer:
    """Start `model`, a detector of `classes`, from the weights of `source`, in place.

    The same classes and box coding: all that fits, see `transfer`. The same classes in another box coding: the body.
    Other classes: the body, and of the heads what does not depend on the classes and the rows of those with the same
    name; boxes only in the same coding.
    Raises as `transfer` does.
    """
    tensors = source.model.state_dict()
    same_coding = source.model.spec.coding == model.spec.coding
    if source.classes == classes and same_coding:
        return transfer(model, tensors)
    body = transfer(model, {name: value for name, value in tensors.items() if name.startswith("body.")})
    return body if source.classes == classes else _with_head_rows(body, model, source, classes, boxes=same_coding)


def _with_head_rows(
    taken: Transfer, model: Detector, source: LoadedDetector, classes: list[str], boxes: bool
) -> Transfer:
    """Copy rows of the heads, and add them to what was taken over."""
    shared = {index: source.classes.index(name) for index, name in enumerate(classes) if name in source.classes}
    whole, part = [], []
    for name in ("head", "auxiliary"):
        ours, theirs = getattr(model, name), getattr(source.model, name)
        if ours is not None and theirs is not None:
            for found, copied in zip((whole, part), ours.copy_rows(theirs, shared, boxes), strict=True):
                found += [f"{name}.{tensor}" for tensor in copied]
    if not part:
        return taken
    named = [classes[index] for index in shared]
    rows = HeadRows(part, boxes, named, [name for name in classes if name not in named])
    fresh = [name for name in taken.fresh if name not in {*whole, *part}]
    return replace(taken, loaded=[*taken.loaded, *whole], fresh=fresh, head=rows)


@torch.no_grad()
def transfer(model: nn.Module, source: Mapping[str, Tensor]) -> Transfer:
    """Copy every tensor of `source` that fits by name and shape into `model`, in place.

    A head for another number of classes does not fit and keeps its initial values; see `take_over`.
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
