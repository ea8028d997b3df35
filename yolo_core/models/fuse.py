"""An inference copy of a model: its training-time parts folded into plain convolutions, and the fold measured."""

import copy

import torch
from torch import Tensor, nn

from yolo_core.models.blocks import Foldable
from yolo_core.models.detector import Detector

TOLERANCE = 1e-4  # of the largest raw output


class FoldError(ArithmeticError):
    """The folded model's outputs differ from the original's by more than the tolerance."""


def fuse(model: Detector, tolerance: float = TOLERANCE) -> Detector:
    """The graph for inference: a copy in evaluation mode, without gradients, folded, without auxiliary heads.

    The copy's `fold_error` is its largest difference to `model` on a random image, relative to the largest raw output
    (or to 1 when that is smaller). Raises FoldError when it is above `tolerance` or not a number.
    """
    folded = copy.deepcopy(model).eval()
    images = _random_image(folded)
    before = _raw(folded, images)
    folded.drop_auxiliary()
    fold_blocks(folded)
    folded.requires_grad_(False)
    folded.fold_error = _relative_difference(before, _raw(folded, images))
    if not folded.fold_error <= tolerance:  # also refuses NaN
        raise FoldError(f"{model.spec.name}: folding changes the output by {folded.fold_error:.2g} of its range")
    return folded


def for_inference(model: Detector) -> Detector:
    """`fuse`, with the weights laid out channels last as the images are."""
    return fuse(model).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - missing overload


def fold_blocks(model: nn.Module) -> None:
    """Fold every foldable block, in place; nothing is measured, so the model may also lie on the meta device."""
    for module in list(model.modules()):
        if isinstance(module, Foldable):
            module.fold()


def _random_image(model: Detector) -> Tensor:
    size = 2 * model.input_stride
    like = next(model.parameters())
    return torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)).to(like)


@torch.no_grad()
def _raw(model: Detector, images: Tensor) -> Tensor:
    """Raw outputs of all levels in a row, in full precision: TF32 would differ more than the fold does."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        return torch.cat([raw.flatten() for raw in model(images)])


def _relative_difference(before: Tensor, after: Tensor) -> float:
    return ((before - after).abs().max() / before.abs().max().clamp(min=1)).item()
