"""Every detector by name."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from yolo_core.errors import UserError
from yolo_core.model_names import known
from yolo_core.models import scaled_yolov4, yolov4_tiny, yolov7, yolov7_specs
from yolo_core.models.detector import Body, Detector
from yolo_core.models.scaled_yolov4 import ScaledYoloV4
from yolo_core.models.spec import Anchors, BoxCoding, ModelSpec, Scaling
from yolo_core.models.yolov4_tiny import TinyCd53s, YoloV4Tiny
from yolo_core.models.yolov7 import YoloV7


@dataclass(frozen=True)
class Entry:
    """A model of the zoo: its spec, and how to build its backbone and neck."""

    spec: ModelSpec
    body: Callable[[Scaling], Body]


ZOO: dict[str, Entry] = {
    "yolov4-tiny": Entry(yolov4_tiny.YOLOV4_TINY, partial(YoloV4Tiny, 2)),
    "yolov4-tiny-3l": Entry(yolov4_tiny.YOLOV4_TINY_3L, partial(YoloV4Tiny, 3)),
    "yolov4-csp": Entry(scaled_yolov4.YOLOV4_CSP, partial(ScaledYoloV4, scaled_yolov4.CSP)),
    "yolov4-csp-leaky": Entry(scaled_yolov4.YOLOV4_CSP_LEAKY, partial(ScaledYoloV4, scaled_yolov4.CSP_LEAKY)),
    "yolov4-p5": Entry(scaled_yolov4.YOLOV4_P5, partial(ScaledYoloV4, scaled_yolov4.P5)),
    "yolov4-p6": Entry(scaled_yolov4.YOLOV4_P6, partial(ScaledYoloV4, scaled_yolov4.P6)),
    "yolov4-p7": Entry(scaled_yolov4.YOLOV4_P7, partial(ScaledYoloV4, scaled_yolov4.P7)),
    "yolov4-p5-darknet": Entry(scaled_yolov4.YOLOV4_P5_DARKNET, partial(ScaledYoloV4, scaled_yolov4.P5_DARKNET)),
    "yolov4-p6-darknet": Entry(scaled_yolov4.YOLOV4_P6_DARKNET, partial(ScaledYoloV4, scaled_yolov4.P6_DARKNET)),
    "yolov7-tiny": Entry(yolov7_specs.YOLOV7_TINY, partial(YoloV7, yolov7.TINY)),
    "yolov7-tiny-silu": Entry(yolov7_specs.YOLOV7_TINY_SILU, partial(YoloV7, yolov7.TINY_SILU)),
    "yolov7": Entry(yolov7_specs.YOLOV7, partial(YoloV7, yolov7.V7)),
    "yolov7-x": Entry(yolov7_specs.YOLOV7_X, partial(YoloV7, yolov7.V7_X)),
    "yolov7-w6": Entry(yolov7_specs.YOLOV7_W6, partial(YoloV7, yolov7.W6)),
    "yolov7-e6": Entry(yolov7_specs.YOLOV7_E6, partial(YoloV7, yolov7.E6)),
    "yolov7-d6": Entry(yolov7_specs.YOLOV7_D6, partial(YoloV7, yolov7.D6)),
    "yolov7-e6e": Entry(yolov7_specs.YOLOV7_E6E, partial(YoloV7, yolov7.E6E)),
    # Ablations of the Scaled-YOLOv4 paper, tables 8 and 9.
    **{spec.name: Entry(spec, partial(ScaledYoloV4, design)) for spec, design in scaled_yolov4.CSP_ABLATION},
    "tinycd53s": Entry(yolov4_tiny.TINY_CD53S, TinyCd53s),
    "cosa-1x3x": Entry(yolov4_tiny.COSA_1X3X, partial(YoloV4Tiny, 2, crossing=1)),
    "cosa-2x2x": Entry(yolov4_tiny.COSA_2X2X, partial(YoloV4Tiny, 2)),
    "cosa-3x1x": Entry(yolov4_tiny.COSA_3X1X, partial(YoloV4Tiny, 2, crossing=3)),
}


def model_names() -> list[str]:
    """Names accepted by `build_model`."""
    return list(ZOO)


def get_spec(name: str) -> ModelSpec:
    """The spec of a model. Raises UserError, suggesting similar names, for an unknown one."""
    return _entry(name).spec


def build_model(
    name: str,
    num_classes: int = 80,
    width: float = 1.0,
    depth: float = 1.0,
    anchors: Anchors | None = None,
    *,
    coding: BoxCoding | None = None,
) -> Detector:
    """A detector with freshly initialised weights.

    width, depth: multipliers of channels and repeats; 1 is the published model.
    anchors: per level, finest first, (w, h) in pixels at the input size in use; None for the published ones.
    coding: overrides the model's own, for weights trained with a different box coding.
    Raises UserError for an unknown name or a value out of range.
    """
    entry = _entry(name)
    if num_classes < 1:
        raise UserError(f"{name}: num_classes = {num_classes}; at least 1")
    if not (0 < width <= 16 and 0 < depth <= 16):
        raise UserError(f"{name}: width = {width:g}, depth = {depth:g}; both must be above 0 and at most 16")
    spec = replace(entry.spec, coding=coding or entry.spec.coding)
    scaling = Scaling(width, depth)
    return Detector(spec, entry.body(scaling), num_classes=num_classes, scaling=scaling, anchors=anchors)


def _entry(name: str) -> Entry:
    return ZOO[known(name)]
