"""The detectors: build one by name, decode its raw maps, fuse, count, save and load it."""

from yolo_core.models.detector import Detector
from yolo_core.models.spec import ModelSpec
from yolo_core.models.zoo import build_model, get_spec, model_names

__all__ = ["Detector", "ModelSpec", "build_model", "get_spec", "model_names"]
