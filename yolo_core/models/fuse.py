"""An inference copy of a model: training-time parts folded into plain convolutions, with the error measured."""

import copy

import torch
from torch import Tensor, nn

from yolo_core.models.blocks import Foldable
from yolo_core.models.detector import Detector

# Of the largest raw output, in float64: its rounding stays below 1e-11 in the deepest model, and the smallest mistake,
# such as a wrong epsilon, changes more than 1e-6. In float32 rounding alone reaches 1e-4, depending on the processor.
TOLERANCE = 1e-8


class FoldError(ArithmeticError):
    """The outputs of the folded model differ from the original's by more than the tolerance."""


def fuse(model: Detector, tolerance: float = TOLERANCE) -> Detector:
    """The inference graph: a folded copy in evaluation mode, without gradients or auxiliary heads.

    Its `fold_error` is the largest difference that folding makes on a random image in float64, relative to the largest
    raw output (at least 1). Raises FoldError when it exceeds `tolerance` or is NaN, or if folded weights overflow.
    """
    error = _fold_error(model)
    if not error <= tolerance:  # also catches NaN
        raise FoldError(f"{model.spec.name}: folding changes the output by {error:.2g} of its range")
    folded = _folded(copy.deepcopy(model).eval())
    if not all(parameter.isfinite().all() for parameter in folded.parameters()):
        raise FoldError(f"{model.spec.name}: folded weights are too large for {next(model.parameters()).dtype}")
    folded.fold_error = error
    return folded


def _folded(model: Detector) -> Detector:
    """The model itself, folded in place."""
    model.drop_auxiliary()
    fold_blocks(model)
    return model.requires_grad_(False)


def _fold_error(model: Detector) -> float:
    exact = copy.deepcopy(model).eval().double()
    images = _random_image(exact)
    before = _raw(exact, images)
    return _relative_difference(before, _raw(_folded(exact), images))


def for_inference(model: Detector) -> Detector:
    """`fuse`, with weights in channels-last layout, like the images."""
    return fuse(model).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - missing overload


def fold_blocks(model: nn.Module) -> None:
    """Fold every foldable block, in place, without measuring the error: the model may be on the meta device."""
    for module in list(model.modules()):
        if isinstance(module, Foldable):
            module.fold()


def _random_image(model: Detector) -> Tensor:
    size = 2 * model.input_stride
    like = next(model.parameters())
    return torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)).to(like)


@torch.no_grad()
def _raw(model: Detector, images: Tensor) -> Tensor:
    """Raw outputs of all levels, flattened."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
        return torch.cat([raw.flatten() for raw in model(images)])


def _relative_difference(before: Tensor, after: Tensor) -> float:
    return ((before - after).abs().max() / before.abs().max().clamp(min=1)).item()
