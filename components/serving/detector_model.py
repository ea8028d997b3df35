"""The detector as a pyfunc model of MLflow: images in, boxes out.

MLflow copies this file and the package `yolo_core` into every logged model and runs them from there, so that loading a
model needs nothing else of the project. This file must therefore import nothing else of it.
"""

import base64
import binascii
import io
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import cv2
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from PIL import Image

from yolo_core.data.image import MAX_PIXELS
from yolo_core.errors import BadArgument
from yolo_core.evaluate.suppression import Suppression
from yolo_core.inference.detector import Detector, checked

# For versions registered before the settings of their evaluation were recorded; its keys are those `params` may have.
LEGACY_SUPPRESSION = asdict(Suppression(conf=0.25, iou=0.65, max_detections=300))
ACCEPTED = "give an encoded image as bytes or base64 text, or RGB pixels (H, W, 3) from 0 to 255; one or a list of them"


class DetectorModel(PythonModel):
    """Finds objects in images; the weights are the artifact `weights`."""

    _skip_type_hint_validation = True  # `predict` checks its input itself

    def load_context(self, context: PythonModelContext) -> None:
        self.detector = Detector.load(context.artifacts["weights"])
        self.defaults = {**LEGACY_SUPPRESSION, **(context.model_config or {})}

    def predict(
        self, context: PythonModelContext | None, model_input, params: dict[str, Any] | None = None
    ) -> list[list[dict[str, Any]]]:
        """The boxes of each image, best first: x1, y1, x2, y2 in px of the given image, score, class_id, class_name.

        model_input: one image or several. An image is an encoded file (bytes, base64 text or a data: URL) or RGB pixels
        (H, W, 3) from 0 to 255; several are a list, an array (B, H, W, 3) or the column `image` of a table.
        params: fields of `Suppression`; the others are as in the evaluation of this version.
        """
        suppression = suppression_of({**self.defaults, **(params or {})})
        return [self._detect(image, suppression) for image in images(model_input)]

    def _detect(self, image: np.ndarray, suppression: Suppression) -> list[dict[str, float | int | str]]:
        (found,) = self.detector.detect([self.detector.prepare(image)], suppression)
        return [
            {
                **dict(zip(("x1", "y1", "x2", "y2"), np.round(one.xyxy, 2).tolist(), strict=True)),
                "score": round(one.score, 6),
                "class_id": one.class_id,
                "class_name": one.label,
            }
            for one in found
        ]


def suppression_of(given: Mapping[str, Any]) -> Suppression:
    """The settings as numbers in their ranges."""
    if unknown := given.keys() - LEGACY_SUPPRESSION.keys():
        raise MlflowException.invalid_parameter_value(
            f"unknown params: {', '.join(sorted(unknown))}; give {', '.join(LEGACY_SUPPRESSION)}"
        )
    try:
        return checked(**given)
    except BadArgument as error:
        raise MlflowException.invalid_parameter_value(f"params: {error}") from None


def images(given: object) -> Iterator[np.ndarray]:
    """The images as RGB (H, W, 3) uint8, in whatever form MLflow passes them."""
    if isinstance(given, pd.DataFrame):
        given = given["image"] if "image" in given else given.iloc[:, 0]
    elif isinstance(given, dict):
        given = given.get("image", given)
    if isinstance(given, pd.Series):
        given = given.tolist()
    if isinstance(given, np.ndarray) and given.dtype.kind in "OSU":
        given = given.tolist()
    if isinstance(given, bytes | bytearray | memoryview | str):
        yield decoded(given)
    elif isinstance(given, list | tuple) and not _is_one_image(given):
        for item in given:
            yield from images(item)
    else:
        array = pixels_of(given)
        yield from array if array.ndim == 4 else (array,)


def _is_one_image(nested: object) -> bool:
    """Are nested lists one image (rows, pixels, channels) rather than a list of images?"""
    depth = 0
    while isinstance(nested, list | tuple) and nested:
        nested, depth = nested[0], depth + 1
    return depth <= 3 and isinstance(nested, int | float)


def decoded(given: bytes | bytearray | memoryview | str) -> np.ndarray:
    """Decode an image (JPEG, PNG, ...), given as bytes or base64 text, to upright RGB (H, W, 3) uint8."""
    if isinstance(given, str):
        text = given.partition(",")[2] if given.startswith("data:") else given
        try:
            given = base64.b64decode("".join(text.split()), validate=True)
        except (binascii.Error, ValueError):
            raise refused("text that is not base64") from None
    _check_size(bytes(given))
    buffer = np.frombuffer(given, np.uint8)
    try:
        image = cv2.imdecode(buffer, cv2.IMREAD_COLOR_RGB) if buffer.size else None
    except cv2.error:  # larger than OpenCV's limit
        image = None
    if image is None:
        raise refused(f"{buffer.size} bytes that cannot be decoded as an image")
    return image


def _check_size(data: bytes) -> None:
    """Refuse an image file over `MAX_PIXELS`, by its header: a small file may decode to gigabytes."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
    except Image.DecompressionBombError:
        raise refused(f"an image of over {MAX_PIXELS / 1e6:g} megapixels") from None
    except Exception:  # decoders raise all kinds of errors
        raise refused(f"{len(data)} bytes that cannot be decoded as an image") from None
    if width * height > MAX_PIXELS:
        raise refused(f"an image of {width}x{height} px, over {MAX_PIXELS / 1e6:g} megapixels")


def pixels_of(given: object) -> np.ndarray:
    """Pixels as (H, W, 3) or (B, H, W, 3) uint8."""
    try:
        array = np.asarray(given)
    except ValueError:
        raise refused("rows of pixels of different lengths") from None
    if array.dtype.kind not in "iuf" or array.ndim not in (3, 4) or array.shape[-1] != 3 or not array.size:
        raise refused(f"an array of {array.dtype} with shape {array.shape}")
    if array.dtype != np.uint8:
        whole = array.astype(np.uint8)
        if not np.array_equal(whole, array):
            raise refused("pixels that are not whole numbers from 0 to 255")
        array = whole
    return array


def refused(what: str) -> MlflowException:
    """An error that the scoring server reports with status 400."""
    return MlflowException.invalid_parameter_value(f"got {what}; {ACCEPTED}")


set_model(DetectorModel())
