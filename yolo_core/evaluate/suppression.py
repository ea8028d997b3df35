"""The settings of non-maximum suppression."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Suppression:
    """Which candidates `yolo_core.evaluate.nms.nms` keeps."""

    conf: float
    """Only candidates that score higher are looked at: 0 to 1, 0.001 for COCO evaluation."""

    iou: float
    """IoU threshold, per class: the lower-scoring of two boxes that overlap by more is dropped."""

    max_detections: int
    """Kept at most per image, over all classes."""
