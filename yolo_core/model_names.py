"""The names of all detectors, without the detectors: importing these takes seconds.

`yolo_core.models.zoo` has a model for each of them, in this order.
"""

import difflib

from yolo_core.errors import UserError

NAMES = (
    "yolov4-tiny",
    "yolov4-tiny-3l",
    "yolov4-csp",
    "yolov4-csp-leaky",
    "yolov4-p5",
    "yolov4-p6",
    "yolov4-p7",
    "yolov4-p5-darknet",
    "yolov4-p6-darknet",
    "yolov7-tiny",
    "yolov7-tiny-silu",
    "yolov7",
    "yolov7-x",
    "yolov7-w6",
    "yolov7-e6",
    "yolov7-d6",
    "yolov7-e6e",
    "d53-fpnspp-leaky",
    "d53-fpnspp-mish",
    "d53-panspp-leaky",
    "d53-panspp-mish",
    "cd53s-cfpnspp-leaky",
    "cd53s-cfpnspp-mish",
    "cd53s-cpanspp-leaky",
    "cd53s-cpanspp-mish",
    "tinycd53s",
    "cosa-1x3x",
    "cosa-2x2x",
    "cosa-3x1x",
)


def known(name: str) -> str:
    """The name itself. Raises UserError, suggesting similar names, for an unknown one."""
    if name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, n=3, cutoff=0.4) or NAMES
        raise UserError(f"unknown model {name!r}; did you mean {', '.join(near)}?")
    return name
