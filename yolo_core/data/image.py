"""Reading and resizing images: the only place where files become RGB pixels."""

from pathlib import Path

import cv2
import numpy as np

from yolo_core.errors import BadFile

MAX_PIXELS = 50_000_000  # of an image file; decoding takes up to 17 bytes per pixel (WebP): this stays below 1 GB
FILL = 114  # grey level (0-255) around letterboxed images and mosaics


def load_image(path: Path | str) -> np.ndarray:
    """Decode an image file to RGB, (H, W, 3) uint8, rotated by its EXIF orientation.

    Grey, palette, CMYK and 16-bit files are converted to 8-bit RGB; an alpha channel is dropped.
    Raises BadFile when the file is missing or cannot be decoded.
    """
    try:
        data = np.fromfile(path, np.uint8)  # a fifth faster than decoding from the file
    except FileNotFoundError:
        raise BadFile(f"{path}: no such image") from None
    image = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB) if data.size else None
    if image is None:
        raise BadFile(f"{path}: cannot be decoded")
    return image


def fitted(width: int, height: int, size: int) -> tuple[int, int]:
    """(width, height) px of an image resized so that its longer side is `size`."""
    scale = size / max(width, height)
    return max(round(width * scale), 1), max(round(height * scale), 1)


def resize(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize (H, W, 3) to (height, width, 3): by area averaging when shrinking, by interpolation when enlarging.

    The published results use area averaging in evaluation; training resizes the same way, so that the network is not
    trained on aliased pixels and tested on smooth ones.
    """
    if image.shape[:2] == (height, width):
        return image
    shrinks = width < image.shape[1] or height < image.shape[0]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
