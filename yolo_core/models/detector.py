"""A detector: body (backbone and neck), heads, and what is needed to decode its maps."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from yolo_core.errors import UserError
from yolo_core.models.checkpointing import checkpointed
from yolo_core.models.head import Head
from yolo_core.models.spec import Anchors, ModelSpec, Scaling


class Body(nn.Module):
    """Backbone and neck.

    forward: images (B, 3, H, W) -> features per level, finest first, (B, out_channels[level], H/stride, W/stride).

    A body trained with auxiliary heads also has features for them, with auxiliary_channels[level] channels.
    checkpointing: in training, recompute activations in the backward pass instead of storing them; results are the
        same. Bodies call their modules through `run`, which implements it.
    """

    out_channels: tuple[int, ...]
    auxiliary_channels: tuple[int, ...] = ()
    checkpointing: bool = False

    def run(self, part: nn.Module, *inputs: Tensor) -> Any:
        """`part(*inputs)`, checkpointed if enabled."""
        return checkpointed(part, *inputs) if self.checkpointing and self.training else part(*inputs)

    def with_auxiliary(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The features of `forward` and the auxiliary features, from one pass."""
        raise NotImplementedError

    def drop_auxiliary(self) -> None:
        """Remove the modules that only the auxiliary features need, in place."""
        self.auxiliary_channels = ()


class Detector(nn.Module):
    """A named model at a given width, depth and number of classes.

    forward: images (B, 3, H, W), RGB, 0 to 1 -> raw maps per level, finest first, (B, A, H/stride, W/stride, 5+K).
    Raises UserError unless H and W are multiples of `input_stride`, the largest stride of the body.

    auxiliary: a second head on intermediate features, for training only; None in most models.
    anchors: buffer (L, A, 2), w and h in pixels at the current input size. Not in the state dict: files store it
    next to the weights.
    """

    anchors: Tensor
    fold_error: float | None = None  # set by `fuse` on its copies

    def __init__(
        self, spec: ModelSpec, body: Body, *, num_classes: int, scaling: Scaling, anchors: Anchors | None = None
    ):
        super().__init__()
        self.spec = spec
        self.num_classes = num_classes
        self.width = scaling.width
        self.depth = scaling.depth
        self.strides = spec.strides
        self.input_stride = spec.input_stride
        sizes = _checked_anchors(spec, spec.anchors if anchors is None else anchors)
        self.register_buffer("anchors", torch.tensor(sizes, dtype=torch.float32), persistent=False)
        self.body = body
        self.head = Head(body.out_channels, spec.strides, len(sizes[0]), num_classes, spec.implicit)
        self.auxiliary: Head | None = None
        if body.auxiliary_channels:
            self.auxiliary = Head(body.auxiliary_channels, spec.strides, len(sizes[0]), num_classes)

    def forward(self, images: Tensor) -> list[Tensor]:
        self._check_size(images)
        return self.head(self.body(images))

    def training_maps(self, images: Tensor) -> list[Tensor]:
        """The maps for the loss: those of `forward`, then those of the auxiliary head, if any."""
        if self.auxiliary is None:
            return self(images)
        self._check_size(images)
        lead, auxiliary = self.body.with_auxiliary(images)
        return [*self.head(lead), *self.auxiliary(auxiliary)]

    def drop_auxiliary(self) -> None:
        """Remove the auxiliary head and the modules only it needs, in place; `forward` is unaffected."""
        self.auxiliary = None
        self.body.drop_auxiliary()

    def _check_size(self, images: Tensor) -> None:
        if torch.compiler.is_compiling():
            return
        height, width = images.shape[-2:]
        stride = self.input_stride
        if height % stride or width % stride:
            raise UserError(f"{self.spec.name}: input of {width}x{height} px; both sides must be multiples of {stride}")


class TrainingGraph(nn.Module):
    """Exposes `training_maps` as `forward`, for data-parallel wrappers."""

    def __init__(self, detector: Detector):
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.detector.training_maps(images)


def _checked_anchors(spec: ModelSpec, anchors: Anchors) -> Anchors:
    """`anchors`, if they fit the model: one list per level, of equal length, all positive. UserError otherwise."""
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
