"""Model specifications as frozen data: scaling, box coding, recipe, loss, published figures. Builds nothing."""

import math
from dataclasses import dataclass
from typing import Literal

from yolo_core.errors import BadArgument
from yolo_core.hyperparameters import Hyperparameters

Anchors = tuple[tuple[tuple[float, float], ...], ...]  # per level, finest first: (w, h) in pixels

# Used by yolov4-csp, yolov4-tiny-3l, yolov7 and yolov7-x.
COCO_ANCHORS: Anchors = (
    ((12, 16), (19, 36), (40, 28)),
    ((36, 75), (76, 55), (72, 146)),
    ((142, 110), (192, 243), (459, 401)),
)


@dataclass(frozen=True)
class Scaling:
    """Width and depth multipliers: of the channels and of the repeats in the stages; 1 is the published model."""

    width: float = 1.0
    depth: float = 1.0

    def channels(self, count: int) -> int:
        """Scaled number of channels, rounded up to a multiple of 8."""
        return math.ceil(count * self.width / 8) * 8

    def repeats(self, count: int) -> int:
        """Scaled number of repeats, at least 1."""
        return max(round(count * self.depth), 1)


@dataclass(frozen=True)
class BoxCoding:
    """How four raw values encode a box; s is their sigmoid.

    Centre = (scale_xy x s - (scale_xy - 1) / 2 + cell) x stride.
    Size = (2 s)^2 x anchor if wh is "sigmoid", e^raw x anchor if "exponential".
    """

    scale_xy: float
    wh: Literal["sigmoid", "exponential"]


# The authors' PyTorch branches use the first; Darknet's yolov4-tiny weights need the second.
SIGMOID_CODING = BoxCoding(scale_xy=2.0, wh="sigmoid")
DARKNET_CODING = BoxCoding(scale_xy=1.05, wh="exponential")


@dataclass(frozen=True)
class SecondStage:
    """Training continues to `epochs` in total, with the cosine schedule recomputed and the hyperparameters `hyp`."""

    epochs: int
    hyp: Hyperparameters


@dataclass(frozen=True)
class Recipe:
    """Published training recipe on COCO. batch: total over all devices; size: side of the square input, in pixels."""

    epochs: int
    batch: int
    size: int
    second_stage: SecondStage | None = None


@dataclass(frozen=True)
class LossSpec:
    """The loss and its model-specific constants.

    kind: label assignment: "anchor-ratio", all predictions whose anchor fits (Scaled-YOLOv4); "simota", the best of
        them (YOLOv7); "lead-guided", the best of the lead heads, also for the auxiliary heads (YOLOv7 at 1280 px).
    balance: weight of the objectness loss per level, finest first.
    obj_factor: multiplier of the objectness gain (1.4 for P6 and P7).
    """

    balance: tuple[float, ...]
    obj_factor: float = 1.0
    kind: Literal["anchor-ratio", "simota", "lead-guided"] = "anchor-ratio"


@dataclass(frozen=True)
class Published:
    """Published figures: parameters in millions, GFLOPs (2 x multiply-add) at the native size, AP in percent, FPS.

    graph: the graph that parameters and GFLOPs refer to: as built, or as deployed by `fuse`.
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

    native_size: side of the published input, in pixels.
    strides: pixels per cell for each level, finest first; anchors: in the same order, in pixels at the native size.
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
        """Both sides of an input must be multiples of this, in pixels."""
        return max(self.strides)

    def anchors_at(self, size: int) -> Anchors:
        """The published anchors in pixels at the input size `size`."""
        native = self.native_size
        return tuple(tuple((w * size / native, h * size / native) for w, h in level) for level in self.anchors)

    def checked_size(self, size: int) -> int:
        """`size`, in pixels, if it is a multiple of all strides; otherwise raises BadArgument `size`."""
        if size % self.input_stride:
            raise BadArgument("size", f"= {size}: {self.name} needs a multiple of {self.input_stride} px")
        return size
