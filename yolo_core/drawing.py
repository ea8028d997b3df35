"""Boxes drawn into images. Images are RGB (H, W, 3) uint8."""

from collections.abc import Sequence

import cv2
import numpy as np


def draw_boxes(
    image: np.ndarray, boxes_xyxy_px: np.ndarray, scores: np.ndarray, classes: np.ndarray, names: Sequence[str]
) -> np.ndarray:
    """A copy of the image with one coloured box and label per detection, the highest score on top."""
    image = np.ascontiguousarray(image).copy()
    thick = max(1, round(max(image.shape[:2]) / 200))
    for box, value, k in zip(boxes_xyxy_px[::-1], scores[::-1], classes[::-1], strict=True):
        x1, y1, x2, y2 = (round(float(edge)) for edge in box)
        colour = class_colour(int(k))
        cv2.rectangle(image, (x1, y1), (x2, y2), colour, thick, cv2.LINE_AA)
        _label(image, f"{names[int(k)]} {value:.0%}", x1, y1, colour)
    return image


def _label(image: np.ndarray, text: str, x: int, y: int, colour: tuple[int, int, int]) -> None:
    """Text on a filled strip, above the corner (x, y) if there is room, below it otherwise."""
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, max(0.36, max(image.shape[:2]) / 1100)
    (width, height), base = cv2.getTextSize(text, font, scale, 1)
    height += base + 2
    x = min(max(x, 0), max(0, image.shape[1] - width - 4))
    top = y - height if y >= height else max(y, 0)
    cv2.rectangle(image, (x, top), (x + width + 4, top + height), colour, cv2.FILLED)
    ink = (0, 0, 0) if np.dot(colour, (0.299, 0.587, 0.114)) > 140 else (255, 255, 255)
    cv2.putText(image, text, (x + 2, top + height - base), font, scale, ink, 1, cv2.LINE_AA)


def class_colour(number: int) -> tuple[int, int, int]:
    """A vivid RGB colour per class: hues a golden ratio apart, so that neighbours differ."""
    hue, brightness = (number * 0.618034) % 1 * 180, (235, 190)[number // 12 % 2]
    pixel = np.array([[[hue, 200, brightness]]], np.uint8)
    red, green, blue = cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0].tolist()
    return red, green, blue
