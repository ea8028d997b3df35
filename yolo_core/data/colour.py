"""Colour jitter in HSV: hue turned, saturation and value scaled."""

import cv2
import numpy as np

from yolo_core.data.image import FILL
from yolo_core.data.scratch import scratch

# OpenCV rounds to nearest where the public recipe's tables cut off: floor(x) = round(x - almost a half).
FLOOR = -0.49999
WHOLE = (slice(None), slice(None))


def jitter(
    image: np.ndarray, gains: np.ndarray, drawn: tuple[slice, slice] = WHOLE, out: np.ndarray | None = None
) -> np.ndarray:
    """Multiply hue, saturation and value by the three gains, clipped to 0..255, hue modulo the circle.

    image: RGB (H, W, 3) or RGBA (H, W, 4) uint8, which is plain FILL outside the rows and columns `drawn`.
    Returns RGB (H, W, 3) uint8: `out` if given, else a new image.
    """
    jittered = np.empty((*image.shape[:2], 3), np.uint8) if out is None else out
    matrix = np.column_stack([np.diag(gains), np.full(3, FLOOR)])
    grey = np.full((1, 1, 3), FILL, np.uint8)
    _jitter_into(grey, grey, matrix)
    jittered.fill(grey.flat[0])
    if image[drawn].size:
        _jitter_into(jittered[drawn], image[drawn], matrix)
    return jittered


def _jitter_into(out: np.ndarray, image: np.ndarray, matrix: np.ndarray) -> None:
    hsv = scratch("hsv", image.shape[0], image.shape[1], 3)
    cv2.cvtColor(image, cv2.COLOR_RGB2HSV, dst=hsv)
    cv2.transform(hsv, matrix, dst=hsv)  # one pass over the three channels, four times as fast as tables
    cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB, dst=out)
