"""Once-for-all: use a trained feature pyramid with fewer levels (arXiv 2011.08036, section 5.6)."""

import copy
from dataclasses import replace

from yolo_core.errors import BadArgument
from yolo_core.models.detector import Detector
from yolo_core.models.scaled_yolov4 import ScaledYoloV4

MIN_LEVELS = 3  # P3, P4 and P5 are always kept


def drop_levels(model: Detector, count: int) -> Detector:
    """A copy of a large model without its `count` coarsest detection levels and the bottom-up path to them.

    Backbone and top-down path are kept whole, because the finer levels were trained on them: input sides must still be
    multiples of `model.input_stride`. Raises BadArgument `count` if the model does not have that many levels to drop.
    """
    kept = len(model.strides) - count
    if count == 0:
        return model
    body = model.body
    if kept < MIN_LEVELS or not isinstance(body, ScaledYoloV4):
        most = max(0, len(model.strides) - MIN_LEVELS) if isinstance(body, ScaledYoloV4) else 0
        raise BadArgument("count", f"= {count}: at most {most} levels of {model.spec.name} can be dropped")
    smaller = copy.deepcopy(model)
    spec = model.spec
    smaller.spec = replace(
        spec,
        strides=spec.strides[:kept],
        anchors=spec.anchors[:kept],
        loss=replace(spec.loss, balance=spec.loss.balance[:kept]),
    )
    smaller.strides = smaller.spec.strides
    smaller.anchors = smaller.anchors[:kept]
    body, head = smaller.body, smaller.head
    assert isinstance(body, ScaledYoloV4)
    del body.downs[kept - 1 :]
    for per_level in (body.outs, head.add, head.levels, head.multiply):
        del per_level[kept:]
    return smaller
