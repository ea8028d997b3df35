"""Boxes that CVAT has turned: its COCO and Pascal VOC files hold the box before that, and the angle as an attribute."""

import math

Box = tuple[float, float, float, float]
"""Left, top, width, height, px."""


def around_rotated(xywh: Box, degrees: float) -> Box:
    """The box around one that is turned about its centre."""
    x, y, w, h = xywh
    cos, sin = abs(math.cos(math.radians(degrees))), abs(math.sin(math.radians(degrees)))
    width, height = w * cos + h * sin, w * sin + h * cos
    left, top = x + (w - width) / 2, y + (h - height) / 2
    return round(left, 3), round(top, 3), round(width, 3), round(height, 3)
