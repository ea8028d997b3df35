"""Every detector by name."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass, replace

from yolo_core.errors import UserError
from yolo_core.models.detector import Body, Detector
from yolo_core.models.spec import Anchors, BoxCoding, ModelSpec, Scaling
from yolo_core.models.yolov4_tiny import YOLOV4_TINY, YOLOV4_TINY_3L, YoloV4Tiny


@dataclass(frozen=True)
class Entry:
    """A model of the zoo: what it is and how its backbone and neck are made."""

    spec: ModelSpec
    body: Callable[[Scaling], Body]


ZOO: dict[str, Entry] = {
    "yolov4-tiny": Entry(YOLOV4_TINY, lambda scaling: YoloV4Tiny(2, scaling)),
    "yolov4-tiny-3l": Entry(YOLOV4_TINY_3L, lambda scaling: YoloV4Tiny(3, scaling)),
}


def model_names() -> list[str]:
    """Names that `build_model` takes."""
    return list(ZOO)


def get_spec(name: str) -> ModelSpec:
    """What is known about a model. An unknown name raises UserError that lists the near ones."""
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
    """A detector with fresh weights.

    width, depth: factors of channels and repeats; 1 is the published model.
    anchors: per level, finest first, (w, h) pixels at the input size in use; None takes the published ones.
    coding: takes the place of the model's own, for weights that were made with another box coding.
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
    entry = ZOO.get(name)
    if entry is None:
        near = difflib.get_close_matches(name, ZOO, n=3, cutoff=0.4) or model_names()
        raise UserError(f"unknown model {name!r}; near: {', '.join(near)}")
    return entry
