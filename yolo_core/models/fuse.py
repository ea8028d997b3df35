"""An inference copy of a model: training-time parts folded into plain convolutions, with the error measured."""

import copy

import torch
from torch import Tensor, nn

from yolo_core.models.blocks import Foldable
from yolo_core.models.detector import Detector

TOLERANCE = 1e-4  # of the largest raw output


class FoldError(ArithmeticError):
    """The outputs of the folded model differ from the original's by more than the tolerance."""


def fuse(model: Detector, tolerance: float = TOLERANCE) -> Detector:
    """The inference graph: a folded copy in evaluation mode, without gradients or auxiliary heads.

    Its `fold_error` is the largest difference from `model` on a random image, relative to the largest raw output (at
    least 1). Raises FoldError when it exceeds `tolerance` or is NaN.
    """
    folded = copy.deepcopy(model).eval()
    images = _random_image(folded)
    before = _raw(folded, images)
    folded.drop_auxiliary()
    fold_blocks(folded)
    folded.requires_grad_(False)
    folded.fold_error = _relative_difference(before, _raw(folded, images))
    if not folded.fold_error <= tolerance:  # also catches NaN
        raise FoldError(f"{model.spec.name}: folding changes the output by {folded.fold_error:.2g} of its range")
    return folded


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
    """Raw outputs of all levels, flattened, in full precision: TF32 error would exceed that of the fold."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        return torch.cat([raw.flatten() for raw in model(images)])


def _relative_difference(before: Tensor, after: Tensor) -> float:
    return ((before - after).abs().max() / before.abs().max().clamp(min=1)).item()
