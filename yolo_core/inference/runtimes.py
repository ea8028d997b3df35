"""A detector's file opened in the runtime it is for: PyTorch, ONNX Runtime, OpenVINO or TensorRT."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from yolo_core.deploy import openvino, tensorrt
from yolo_core.deploy.graph import Facts, package
from yolo_core.deploy.onnx import OnnxPredictor
from yolo_core.errors import BadArgument, BadFile, UserError
from yolo_core.evaluate.tta import Plain, Predictor
from yolo_core.models.fuse import for_inference
from yolo_core.models.weights import load_detector

AUTHORS = (".pt", ".pth", ".weights")


@dataclass(frozen=True)
class Runtime:
    """A detector ready to run."""

    name: str
    """Name of the runtime."""
    predictor: Predictor
    """Images to decoded boxes."""
    classes: tuple[str, ...]
    """Class names by index."""
    size: int
    """Longer side of the input, px."""
    stride: int
    """Canvases are multiples of this, px."""
    square: bool
    """Whether the file takes only canvases of `size` x `size`."""
    device: torch.device
    """Where it runs."""


def open_runtime(path: Path, device: torch.device, *, size: int | None = None, threads: int = 0) -> Runtime:
    """Open a file by its suffix.

    size: longer side of the input in px, None for the file's own; an exported file has only that.
    threads: CPU threads of ONNX Runtime and OpenVINO, 0 lets them choose.
    Raises UserError for a file of another kind, a damaged one, a missing package, or a size that does not fit.
    """
    suffix = path.suffix.lower()
    if suffix in AUTHORS:
        raise UserError(f"{path}: convert it first: scaled-yolov4 import-weights --from {path} --model NAME --out FILE")
    if suffix not in OPENERS:
        raise UserError(f"{path}: not a detector; give a file that ends in {', '.join(OPENERS)}")
    if not path.is_file():
        raise UserError(f"{path}: no such file; give the model.safetensors of a training, or an exported file")
    return OPENERS[suffix](path, device, size, threads)


def _pytorch(path: Path, device: torch.device, size: int | None, threads: int) -> Runtime:
    loaded = load_detector(path, device)
    side = loaded.size if size is None else loaded.model.spec.checked_size(size)
    fused = for_inference(loaded.model)
    return Runtime("PyTorch", Plain(fused), tuple(loaded.classes), side, fused.input_stride, False, device)


def _onnx(path: Path, device: torch.device, size: int | None, threads: int) -> Runtime:
    predictor = OnnxPredictor(path, device, threads)
    outputs = [output.name for output in predictor.session.get_outputs()]
    if outputs != ["predictions"]:
        raise UserError(f"{path}: gives {', '.join(outputs)}; give the model.onnx beside it, without NMS in the graph")
    return _exported("ONNX Runtime", path, predictor, predictor.metadata, device, size)


def _openvino(path: Path, device: torch.device, size: int | None, threads: int) -> Runtime:
    predictor = openvino.OpenVINOPredictor(path, "fp32", threads)
    return _exported("OpenVINO", path, predictor, predictor.metadata, torch.device("cpu"), size)


def _tensorrt(path: Path, device: torch.device, size: int | None, threads: int) -> Runtime:
    package("tensorrt", "export")
    reason = tensorrt.why_not(device)
    if reason:
        raise UserError(f"{path}: an engine needs TensorRT on a CUDA device, but there is {reason}")
    try:
        metadata = json.loads(tensorrt.metadata_path(path).read_bytes())
    except (OSError, ValueError) as error:
        raise BadFile(f"{tensorrt.metadata_path(path)}: cannot be read ({error}); export the engine again") from None
    return _exported("TensorRT", path, tensorrt.TensorRTPredictor(path, device), metadata, device, size)


def _exported(
    name: str, path: Path, predictor: Predictor, metadata: Facts, device: torch.device, size: int | None
) -> Runtime:
    try:
        classes, side = tuple(map(str, metadata["classes"])), int(metadata["size"])
    except (KeyError, TypeError, ValueError):
        raise BadFile(f"{path}: has no class names and size; give a file exported by this project") from None
    if size not in (None, side):
        raise BadArgument("size", f"= {size}: {path} was exported for {side} px; export it again or give that size")
    return Runtime(name, predictor, classes, side, side, True, device)


OPENERS: dict[str, Callable[[Path, torch.device, int | None, int], Runtime]] = {
    ".safetensors": _pytorch,
    ".onnx": _onnx,
    ".xml": _openvino,
    ".engine": _tensorrt,
}
