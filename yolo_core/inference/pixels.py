"""Images as people hold them, as RGB pixels."""

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import cv2
import numpy as np

from yolo_core.data.image import load_image
from yolo_core.errors import BadFile

if TYPE_CHECKING:
    import PIL.Image

# A file, an encoded image, RGB (H, W, 3), RGBA (H, W, 4) or grey (H, W) pixels, or an image of Pillow.
Image: TypeAlias = "str | Path | bytes | np.ndarray | PIL.Image.Image"


def rgb(image: Image) -> np.ndarray:
    """The image as RGB (H, W, 3) uint8; files, bytes and Pillow's images are rotated by their EXIF orientation.

    Raises BadFile for a file or bytes that cannot be decoded, ValueError for an array of another shape or type, and
    TypeError for anything that is not an image.
    """
    if isinstance(image, str | Path):
        return load_image(image)
    if isinstance(image, bytes | bytearray | memoryview):
        return _decoded(bytes(image))
    if isinstance(image, np.ndarray):
        return _from_array(image)
    if hasattr(image, "getexif"):  # Pillow's, without importing it
        return _from_pillow(image)
    raise TypeError(f"not an image: {type(image).__name__}; give a path, bytes, an RGB array or a Pillow image")


def _decoded(data: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB) if data else None
    if image is None:
        raise BadFile(f"{len(data)} bytes: cannot be decoded as an image")
    return image


def _from_array(array: np.ndarray) -> np.ndarray:
    shaped = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if array.dtype != np.uint8 or not shaped or not array.size:
        raise ValueError(f"not an image: {array.dtype} of shape {array.shape}; give RGB (H, W, 3) uint8")
    if array.ndim == 2:
        return np.repeat(array[..., None], 3, 2)
    return array[..., :3]


def _from_pillow(image: "PIL.Image.Image") -> np.ndarray:
    from PIL import ImageOps  # installed, as the image is one of its own

    return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
