"""A detector: body (backbone and neck), heads, and what is needed to read its maps."""

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

    A body for training with auxiliary heads also has features for them, with auxiliary_channels[level] channels.
    checkpointing: in training, recompute activations in the backward pass instead of keeping them; nothing else
        changes. Bodies call their parts through `run`, which sees to it.
    """

    out_channels: tuple[int, ...]
    auxiliary_channels: tuple[int, ...] = ()
    checkpointing: bool = False

    def run(self, part: nn.Module, *inputs: Tensor) -> Any:
        """`part(*inputs)`, checkpointed where that is asked for."""
        return checkpointed(part, *inputs) if self.checkpointing and self.training else part(*inputs)

    def with_auxiliary(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """What `forward` gives and the auxiliary features, from one computation."""
        raise NotImplementedError

    def drop_auxiliary(self) -> None:
        """Remove, in place, what only the auxiliary features need."""
        self.auxiliary_channels = ()


class Detector(nn.Module):
    """A named model at some width, depth and number of classes.

    forward: images (B, 3, H, W), RGB, 0 to 1 -> raw maps per level, finest first, (B, A, H/stride, W/stride, 5+K).
    H and W must be multiples of `input_stride`, the largest stride of the body, else UserError.

    auxiliary: a second head on features inside the network, for training alone; None in most models.
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
        """The maps that the loss is computed from: those of `forward`, then the auxiliary head's where there is one."""
        if self.auxiliary is None:
            return self(images)
        self._check_size(images)
        lead, auxiliary = self.body.with_auxiliary(images)
        return [*self.head(lead), *self.auxiliary(auxiliary)]

    def drop_auxiliary(self) -> None:
        """Remove the auxiliary head and what only it needs, in place; `forward` stays as it is."""
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
    """A detector whose forward is `training_maps`: what data-parallel training wraps."""

    def __init__(self, detector: Detector):
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.detector.training_maps(images)


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
