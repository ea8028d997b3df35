"""What a model is, as data: scaling, box coding, recipe, loss, published figures. Frozen, no code that builds."""

import math
from dataclasses import dataclass
from typing import Literal

from yolo_core.errors import BadArgument
from yolo_core.hyperparameters import Hyperparameters

Anchors = tuple[tuple[tuple[float, float], ...], ...]  # per level, finest first: (w, h) in pixels

# Of yolov4-csp, yolov4-tiny-3l, yolov7 and yolov7-x.
COCO_ANCHORS: Anchors = (
    ((12, 16), (19, 36), (40, 28)),
    ((36, 75), (76, 55), (72, 146)),
    ((142, 110), (192, 243), (459, 401)),
)


@dataclass(frozen=True)
class Scaling:
    """The two dials of a model: channels and repeats of its stages.

    width, depth: factors, 1 is the published model.
    """

    width: float = 1.0
    depth: float = 1.0

    def channels(self, count: int) -> int:
        """Scaled channel count, rounded up to a multiple of 8."""
        return math.ceil(count * self.width / 8) * 8

    def repeats(self, count: int) -> int:
        """Scaled number of repeats, at least 1."""
        return max(round(count * self.depth), 1)


@dataclass(frozen=True)
class BoxCoding:
    """How four raw numbers become a box; s is their sigmoid.

    Centre = (scale_xy x s - (scale_xy - 1) / 2 + cell) x stride.
    Size = (2 s)^2 x anchor when wh is "sigmoid", e^raw x anchor when it is "exponential".
    """

    scale_xy: float
    wh: Literal["sigmoid", "exponential"]


# The authors' PyTorch branches train with the first; Darknet's yolov4-tiny weights need the second.
SIGMOID_CODING = BoxCoding(scale_xy=2.0, wh="sigmoid")
DARKNET_CODING = BoxCoding(scale_xy=1.05, wh="exponential")


@dataclass(frozen=True)
class SecondStage:
    """Training goes on to `epochs` in all, the cosine recomputed, with the hyperparameters `hyp`."""

    epochs: int
    hyp: Hyperparameters


@dataclass(frozen=True)
class Recipe:
    """Published training on COCO. batch: images over all devices; size: pixels, the square's side."""

    epochs: int
    batch: int
    size: int
    second_stage: SecondStage | None = None


@dataclass(frozen=True)
class LossSpec:
    """The loss and its constants, which belong to the model.

    kind: which predictions answer for a target: "anchor-ratio" all of fitting shape (Scaled-YOLOv4), "simota" the best
        of them (YOLOv7), "lead-guided" the lead heads' best, for them and for auxiliary heads (YOLOv7 at 1280 px).
    balance: weight of the objectness loss per level, finest first.
    obj_factor: extra factor of the objectness gain (1.4 for P6 and P7).
    """

    balance: tuple[float, ...]
    obj_factor: float = 1.0
    kind: Literal["anchor-ratio", "simota", "lead-guided"] = "anchor-ratio"


@dataclass(frozen=True)
class Published:
    """Printed figures: parameters in millions, GFLOPs (2 x multiply-add) at the native size, AP in percent, FPS.

    graph: what the sizes are of: the model as built, or as `fuse` leaves it.
    with_auxiliary: whether they include auxiliary heads.
    """

    source: str
    params_m: float | None = None
    gflops: float | None = None
    ap: float | None = None
    ap50: float | None = None
    ap75: float | None = None
    fps: float | None = None
    fps_on: str | None = None
    graph: Literal["built", "deployed"] = "built"
    with_auxiliary: bool = False


@dataclass(frozen=True)
class ModelSpec:
    """A named detector.

    native_size: pixels, the side of the published input.
    strides: pixels per cell, per level, finest first; anchors in pixels at the native size, in the same order.
    hyp: the hyperparameters of its recipe.
    implicit: whether the head has implicit knowledge.
    """

    name: str
    family: str
    native_size: int
    strides: tuple[int, ...]
    anchors: Anchors
    coding: BoxCoding
    hyp: Hyperparameters
    recipe: Recipe
    loss: LossSpec
    published: Published
    implicit: bool = False

    @property
    def input_stride(self) -> int:
        """What both sides of an input must be multiples of, pixels."""
        return max(self.strides)

    def checked_size(self, size: int) -> int:
        """`size` in px if the strides divide it; else BadArgument `size`."""
        if size % self.input_stride:
            raise BadArgument("size", f"= {size}: {self.name} needs a multiple of {self.input_stride} px")
        return size
