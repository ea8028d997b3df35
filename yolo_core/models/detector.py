"""A detector: body (backbone and neck), head, and what is needed to read its maps."""

import math

import torch
from torch import Tensor, nn

from yolo_core.errors import UserError
from yolo_core.models.head import Head
from yolo_core.models.spec import Anchors, ModelSpec, Scaling


class Body(nn.Module):
    """Backbone and neck.

    forward: images (B, 3, H, W) -> features per level, finest first, (B, out_channels[level], H/stride, W/stride).
    """

    out_channels: tuple[int, ...]


class Detector(nn.Module):
    """A named model at some width, depth and number of classes.

    forward: images (B, 3, H, W), RGB, 0 to 1 -> raw maps per level, finest first, (B, A, H/stride, W/stride, 5+K).
    H and W must be multiples of the largest stride, else UserError.

    anchors: buffer (L, A, 2), w and h in pixels of the input size in use. It is not part of the state dict:
    files keep it beside the weights.
    """

    anchors: Tensor
    fold_error: float | None = None  # set on copies made by `fuse`

    def __init__(
        self, spec: ModelSpec, body: Body, *, num_classes: int, scaling: Scaling, anchors: Anchors | None = None
    ):
        super().__init__()
        self.spec = spec
        self.num_classes = num_classes
        self.width = scaling.width
        self.depth = scaling.depth
        self.strides = spec.strides
        sizes = _checked_anchors(spec, spec.anchors if anchors is None else anchors)
        self.register_buffer("anchors", torch.tensor(sizes, dtype=torch.float32), persistent=False)
        self.body = body
        self.head = Head(body.out_channels, spec.strides, len(sizes[0]), num_classes)

    def forward(self, images: Tensor) -> list[Tensor]:
        if not torch.compiler.is_compiling():
            self._check_size(*images.shape[-2:])
        return self.head(self.body(images))

    def _check_size(self, height: int, width: int) -> None:
        stride = max(self.strides)
        if height % stride or width % stride:
            raise UserError(f"{self.spec.name}: input of {width}x{height} px; both sides must be multiples of {stride}")


def _checked_anchors(spec: ModelSpec, anchors: Anchors) -> Anchors:
    """The anchors if they fit the model's levels: one list per level, equally long, positive; else UserError."""
    counts = {len(level) for level in anchors}
    if len(anchors) != len(spec.strides) or len(counts) != 1 or counts == {0}:
        found = "/".join(str(len(level)) for level in anchors)
        raise UserError(
            f"{spec.name}: anchors per level {found or 'none'}; give {len(spec.strides)} levels of equal length"
        )
    for level in anchors:
        for pair in level:
            if len(pair) != 2 or not all(0 < side < math.inf for side in pair):
                raise UserError(f"{spec.name}: anchor {tuple(pair)}: expected width and height above 0 px")
    return anchors
