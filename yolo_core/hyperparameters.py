"""Training hyperparameters: one table with each value's meaning, allowed range and whether it evolves.

The recipes of the models, the range checks of the parameter file and the genetic search all read this table by name.
"""

import dataclasses
from dataclasses import dataclass

from yolo_core.errors import UserError


@dataclass(frozen=True)
class Range:
    """Allowed values of one hyperparameter; evolution clips to them."""

    low: float
    """Lower limit, inclusive."""
    high: float
    """Upper limit, inclusive."""
    evolves: bool = True
    """Whether the genetic search mutates it."""


def _value(default: float, low: float, high: float, meaning: str, evolves: bool = True):
    return dataclasses.field(default=default, metadata={"range": Range(low, high, evolves), "meaning": meaning})


@dataclass(frozen=True)
class Hyperparameters:
    """Settings of the optimizer, the loss and the augmentation.

    Defaults are the published recipe of the large models P5 to P7 (authors' repository, `hyp.scratch`).
    """

    lr0: float = _value(0.01, 1e-5, 0.1, "learning rate after warm-up")
    lrf: float = _value(0.2, 0.01, 1.0, "last learning rate as a fraction of lr0 (cosine)")
    momentum: float = _value(0.937, 0.6, 0.98, "SGD Nesterov momentum")
    weight_decay: float = _value(5e-4, 0.0, 1e-3, "weight decay of convolution weights at the nominal batch")
    warmup_epochs: float = _value(3.0, 0.0, 50.0, "epochs of warm-up", evolves=False)
    warmup_iterations: float = _value(1000.0, 0.0, 1e5, "fewest iterations of warm-up", evolves=False)
    warmup_momentum: float = _value(0.9, 0.0, 0.98, "momentum at the first warm-up step", evolves=False)
    warmup_bias_lr: float = _value(0.1, 0.0, 0.2, "learning rate of biases at the first warm-up step", evolves=False)
    box: float = _value(0.05, 0.02, 0.2, "gain of the CIoU loss")
    cls: float = _value(0.5, 0.1, 4.0, "gain of the class loss")
    obj: float = _value(1.0, 0.1, 4.0, "gain of the objectness loss")
    cls_count_power: float = _value(
        1.0, 0.0, 1.0, "the class gain grows with this power of the number of classes / 80", evolves=False
    )
    obj_size_power: float = _value(
        2.0, 0.0, 2.0, "with SimOTA the objectness gain grows with this power of the size / 640 px", evolves=False
    )
    simota_from: float = _value(
        0.0, 0.0, 1.0, "part of the training without SimOTA: until then all candidates are assigned", evolves=False
    )
    anchor_t: float = _value(4.0, 2.0, 8.0, "largest side ratio of a box to an anchor it is assigned to")
    hsv_h: float = _value(0.015, 0.0, 0.1, "hue jitter, fraction of the circle")
    hsv_s: float = _value(0.7, 0.0, 0.9, "saturation jitter, fraction")
    hsv_v: float = _value(0.4, 0.0, 0.9, "value jitter, fraction")
    translate: float = _value(0.5, 0.0, 0.9, "largest shift, fraction of the image side")
    scale: float = _value(0.5, 0.0, 0.95, "largest change of size, fraction")
    flip_lr: float = _value(0.5, 0.0, 1.0, "probability of a left-right flip", evolves=False)
    mosaic: float = _value(1.0, 0.0, 1.0, "probability of a mosaic", evolves=False)
    mosaic9: float = _value(0.0, 0.0, 1.0, "share of mosaics of nine images, not four", evolves=False)
    mixup: float = _value(0.0, 0.0, 1.0, "probability of mixing in a second image, Beta(8, 8)", evolves=False)
    paste_in: float = _value(0.0, 0.0, 1.0, "probability of pasting in objects of other images", evolves=False)

    def replace(self, **values: float) -> "Hyperparameters":
        """A copy with some values changed; an unknown name or a value out of range raises UserError."""
        for name, value in values.items():
            check(name, value)
        return dataclasses.replace(self, **values)


RANGES: dict[str, Range] = {f.name: f.metadata["range"] for f in dataclasses.fields(Hyperparameters)}


def check(name: str, value: float) -> None:
    """Raise UserError unless `name` is a hyperparameter and `value` is in its range."""
    allowed = RANGES.get(name)
    if allowed is None:
        raise UserError(f"unknown hyperparameter {name!r}; known: {', '.join(RANGES)}")
    if not allowed.low <= value <= allowed.high:  # also refuses NaN
        raise UserError(f"hyperparameter {name} = {value} is outside [{allowed.low:g}, {allowed.high:g}]")
