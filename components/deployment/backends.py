"""The ways to run one detector on this machine: PyTorch, ONNX Runtime, OpenVINO and TensorRT."""

import copy
from dataclasses import dataclass
from pathlib import Path

import torch

from components.deployment.export_report import ExportReport
from components.files import EXPORT, GRAPH, read_json, require
from yolo_core.deploy import openvino, tensorrt
from yolo_core.deploy.cuda_graph import CudaGraph
from yolo_core.deploy.onnx import OnnxPredictor
from yolo_core.errors import UserError, advised
from yolo_core.evaluate.tta import Plain, Predictor
from yolo_core.models.detector import Detector


@dataclass(frozen=True)
class Backend:
    """One way to run the detector."""

    name: str
    """Runtime and, where it has several, device."""

    precision: str
    """fp32, fp16, bf16 or int8."""

    predictor: Predictor
    """Images to decoded boxes."""


@advised("run `scaled-yolov4 export` again")
def open_backends(fused: Detector, size: int, export: Path, *, device: torch.device, threads: int) -> list[Backend]:
    """Every backend that can run here, PyTorch in float32 first; float16 on CUDA only, OpenVINO on the CPU only.

    export: the folder of the stage `export`; size: px. Raises UserError unless its graph is of this model and size.
    """
    plain = require(export / GRAPH, "export")
    onnx = OnnxPredictor(plain, device, threads)
    _check_same(plain, onnx, fused, size)
    where = "CUDA" if onnx.provider.startswith("CUDA") else "CPU"
    found = [
        Backend("PyTorch", "fp32", Plain(fused)),
        Backend(f"ONNX Runtime {where}", "fp32", onnx),
    ]
    return found + (_on_cuda(fused, export, device) if device.type == "cuda" else _on_cpu(export, threads))


def _on_cuda(fused: Detector, export: Path, device: torch.device) -> list[Backend]:
    half = _half(fused)
    found = [
        Backend("PyTorch", "fp16", half),
        Backend("PyTorch CUDA graph", "fp32", CudaGraph(Plain(fused))),
        Backend("PyTorch CUDA graph", "fp16", CudaGraph(half)),
    ]
    if not tensorrt.why_not(device):
        engines = {p: export / f"model_{p}.engine" for p in ("fp32", "fp16")}
        found += [
            Backend("TensorRT", precision, tensorrt.TensorRTPredictor(path, device))
            for precision, path in engines.items()
            if path.exists()
        ]
    return found


def _on_cpu(export: Path, threads: int) -> list[Backend]:
    """OpenVINO in the precisions that the export built and accepted."""
    report: ExportReport = read_json(require(export / EXPORT, "export"))
    return [
        Backend("OpenVINO CPU", precision, openvino.OpenVINOPredictor(export / row["file"], precision, threads))
        for precision, row in report.get("openvino", {}).items()
        if row["status"] == "built" and "file" in row and not openvino.why_not(precision)
    ]


def _check_same(path: Path, onnx: OnnxPredictor, model: Detector, size: int) -> None:
    """UserError unless the exported graph is of this model, at this size and with these levels."""
    wanted = {"model": model.spec.name, "size": size, "strides": list(model.strides)}
    found = {name: onnx.metadata.get(name) for name in wanted}
    if found != wanted:
        raise UserError(
            f"{path}: exported as {found}, but {wanted} was requested; run `scaled-yolov4 export` with the same options"
        )


def _half(fused: Detector) -> Predictor:
    plain = Plain(copy.deepcopy(fused).half())
    return lambda images: plain(images.half())
