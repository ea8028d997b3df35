"""Detectors applied to images, whatever file they come from: the part behind `from yolo_core import Detector`."""
