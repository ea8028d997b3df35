"""The detector: models, data, losses, training step, evaluation and export on torch, NumPy, OpenCV and hotcoco.

>>> from yolo_core import Detector
>>> detector = Detector.load("model.safetensors")
>>> for found in detector.predict("photo.jpg", conf=0.25):
...     line = f"{found.label} {found.score:.0%} at {found.xyxy}"
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from yolo_core.errors import UserError
    from yolo_core.inference.detector import Detector
    from yolo_core.inference.result import Detection, Result

__all__ = ["Detection", "Detector", "Result", "UserError"]

# Imported at first use: the command line imports this package, and torch takes seconds.
_MODULES = {
    "Detection": "yolo_core.inference.result",
    "Detector": "yolo_core.inference.detector",
    "Result": "yolo_core.inference.result",
    "UserError": "yolo_core.errors",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
