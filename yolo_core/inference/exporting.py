"""A detector written for another runtime, and compared with itself there."""

from collections.abc import Sequence
from pathlib import Path

import torch

from yolo_core.deploy import openvino
from yolo_core.deploy.onnx import OnnxPredictor, export_onnx
from yolo_core.errors import UserError
from yolo_core.evaluate.tta import Plain, Predictor
from yolo_core.models.detector import Detector

OPSET = 17
TOLERANCE = 1e-3  # of the largest prediction: rounding in float32 grows with the depth


class ExportError(ArithmeticError):
    """The exported file does not predict what the detector does."""


def export(model: Detector, path: Path, *, classes: Sequence[str], size: int) -> None:
    """Write a fused detector as ONNX (.onnx) or for OpenVINO (.xml), for square images of `size` px and any batch.

    Raises UserError for another suffix or a missing package, ExportError if the file predicts something else.
    """
    exported = {".onnx": _onnx, ".xml": _openvino}.get(path.suffix.lower())
    if exported is None:
        raise UserError(f"{path}: cannot be written; give a file that ends in .onnx or .xml")
    _check(path, Plain(model), exported(model, path, classes, size), size)


def _onnx(model: Detector, path: Path, classes: Sequence[str], size: int) -> Predictor:
    export_onnx(model, path, classes=classes, size=size, opset=OPSET)
    return OnnxPredictor(path)


def _openvino(model: Detector, path: Path, classes: Sequence[str], size: int) -> Predictor:
    openvino.convert(model, path, classes=classes, size=size)
    return openvino.OpenVINOPredictor(path, "fp32")


def _check(path: Path, model: Predictor, exported: Predictor, size: int) -> None:
    images = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    expected = model(images)
    error = ((exported(images) - expected).abs().max() / expected.abs().max()).item()
    if not error <= TOLERANCE:  # NaN is no small error
        path.unlink()
        raise ExportError(f"{path}: its predictions differ by {error:.2g} of their range; it was removed")
