"""Tells whether several image files hold one picture, as when a dataset was converted from PNG to JPEG."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 32  # pixels of a thumbnail
COMPRESSION = 2.0  # of 255: the mean difference that lossy formats leave between thumbnails


def are_one_picture(paths: Sequence[Path]) -> bool:
    """Have all files the same size in pixels and nearly the same content? False if one cannot be read."""
    try:
        first, *others = [_thumbnail(path) for path in paths]
    except Exception:  # decoders raise all kinds of errors; the image check names them
        return False
    return all(size == first[0] and np.abs(values - first[1]).mean() <= COMPRESSION for size, values in others)


def _thumbnail(path: Path) -> tuple[tuple[int, int], np.ndarray]:
    """(width, height) in pixels, and grey values (SIDE, SIDE)."""
    with Image.open(path) as image:
        small = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
        return image.size, np.asarray(small, np.float32)
