"""Letterbox: an image scaled onto a grey canvas, and boxes mapped both ways."""

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from yolo_core.data.image import FILL, resize

PAD = 0.5  # strides of grey around an image, as the published results are evaluated

Boxes = TypeVar("Boxes", np.ndarray, torch.Tensor)


@dataclass(frozen=True)
class Letterbox:
    """Where an image is on its canvas.

    The scales differ because the resized image is rounded to whole pixels; keeping both makes the inverse exact.
    """

    scale_x: float
    """Canvas px per image px, horizontally."""
    scale_y: float
    """The same vertically."""
    pad_x: int
    """Canvas px left of the image."""
    pad_y: int
    """Canvas px above the image."""

    def to_canvas(self, boxes_xyxy_px: Boxes) -> Boxes:
        """(..., 4) boxes in px of the image -> px of the canvas; NumPy or torch, floating point."""
        scale, shift = self._vectors(boxes_xyxy_px)
        return boxes_xyxy_px * scale + shift

    def to_image(self, boxes_xyxy_px: Boxes) -> Boxes:
        """(..., 4) boxes in px of the canvas -> px of the image, unclipped; NumPy or torch, floating point."""
        scale, shift = self._vectors(boxes_xyxy_px)
        return (boxes_xyxy_px - shift) / scale

    def _vectors(self, boxes: Boxes) -> tuple[Boxes, Boxes]:
        scale = (self.scale_x, self.scale_y) * 2
        shift = (self.pad_x, self.pad_y) * 2
        if isinstance(boxes, torch.Tensor):
            return boxes.new_tensor(scale), boxes.new_tensor(shift)
        return np.asarray(scale, boxes.dtype), np.asarray(shift, boxes.dtype)


def canvas(height: int, width: int, stride: int, pad: float = PAD) -> tuple[int, int]:
    """The (height, width) px of the smallest canvas in multiples of `stride` that holds an image and `pad` strides."""
    return math.ceil(height / stride + pad) * stride, math.ceil(width / stride + pad) * stride


def letterbox(image: np.ndarray, height_width: tuple[int, int], fill: int = FILL) -> tuple[np.ndarray, Letterbox]:
    """Scale an image (H, W, 3) uint8 to the largest size that fits `height_width`, centred on grey.

    Returns the canvas (height, width, 3) and the Letterbox.
    """
    height, width = height_width
    h, w = image.shape[:2]
    scale = min(height / h, width / w)
    resized = resize(image, max(round(w * scale), 1), max(round(h * scale), 1))
    return centred(resized, (w, h), height_width, fill)


def centred(
    resized: np.ndarray, original_wh: tuple[int, int], height_width: tuple[int, int], fill: int = FILL
) -> tuple[np.ndarray, Letterbox]:
    """Centre an already resized image (H, W, 3) on a canvas that it fits; returns the same as `letterbox`."""
    h, w = resized.shape[:2]
    box = Letterbox(w / original_wh[0], h / original_wh[1], (height_width[1] - w) // 2, (height_width[0] - h) // 2)
    canvas = np.full((*height_width, 3), fill, np.uint8)
    canvas[box.pad_y : box.pad_y + h, box.pad_x : box.pad_x + w] = resized
    return canvas, box
