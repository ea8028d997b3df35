"""Latency of one image, from a canvas to decoded boxes, in every runtime on the CPU; batch 1, two threads.

Weights are random, with BatchNorm statistics from a batch of noise so that values neither vanish nor grow. The AP that
INT8 costs is measured on trained models by `scaled-yolov4 export`.
"""

import copy
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np
import torch
import typer
from torch import Tensor, nn

from benchmarks import peers
from benchmarks.contender import Contender, Figures, Round
from benchmarks.race import Result, race
from benchmarks.report import Goal, publish
from yolo_core.deploy.onnx import OnnxPredictor, export_onnx
from yolo_core.deploy.openvino import OpenVINOPredictor, Precision, convert, quantise
from yolo_core.evaluate.tta import Plain, Predictor
from yolo_core.models.cost import deploy_cost
from yolo_core.models.detector import Detector
from yolo_core.models.fuse import for_inference
from yolo_core.models.zoo import build_model

SIZES = {"yolov4-tiny": 416, "yolov4-csp": 640, "yolov7-tiny": 416}  # px
CALLS = {"yolov4-tiny": 8, "yolov4-csp": 2, "yolov7-tiny": 8}  # per round, after one that is not counted
THREADS, CLASSES, CALIBRATION_IMAGES = 2, 80, 2
EAGER = {
    "yolov4-tiny": "ours, unfused (the authors' is for Darknet)",
    "yolov4-csp": "ScaledYOLOv4, eager",
    "yolov7-tiny": "yolov7, eager",
}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.int8}
PRODUCT = 2048  # rows and columns
FUSED_YOLOV7 = "yolov7, fused as its detect.py does"

Module = TypeVar("Module", bound=nn.Module)
Input = TypeVar("Input")


def main(rounds: int = 3) -> None:
    with TemporaryDirectory(prefix="inference-") as folder:
        write_files(Path(folder))
        results = {result.name: result for result in race(_contenders(folder), rounds)}
    eager = [results[name] for name in (*EAGER.values(), FUSED_YOLOV7)]
    fp32, bf16, int8 = (results[f"OpenVINO {precision}"] for precision in ("fp32", "bf16", "int8"))
    runtime, pytorch = results["ONNX Runtime fp32"], results["PyTorch fp32"]
    rates = {precision: results[f"product {precision}"].figures for precision in DTYPES}
    _publish("inference-fp32", [fp32, *eager, pytorch, runtime], 2.5, at_product_rate=rates["fp32"])
    _publish("inference-bf16", [bf16, *eager, results["PyTorch bf16"]], 5, at_product_rate=rates["bf16"])
    _publish("inference-int8", [int8, *eager], 7, at_product_rate=rates["int8"])
    _publish("inference-onnxruntime", [runtime, pytorch], 1, dict.fromkeys(SIZES, pytorch.name))


def _contenders(folder: str) -> list[Contender]:
    def ours(name: str, function: str, **options: object) -> Contender:
        return Contender(name, f"benchmarks.inference:{function}", options, threads=THREADS)

    def original(name: str, function: str, checkout: str, **options: object) -> Contender:
        make = f"benchmarks.peers.inference:{function}"
        return Contender(name, make, options, peers.path(checkout), THREADS)

    return [
        *(ours(f"OpenVINO {p}", "openvino", folder=folder, precision=p) for p in ("fp32", "bf16", "int8")),
        ours("ONNX Runtime fp32", "onnx_runtime", folder=folder),
        *(ours(f"PyTorch {p}", "pytorch", precision=p) for p in ("fp32", "bf16")),
        ours(EAGER["yolov4-tiny"], "unfused"),
        original(EAGER["yolov4-csp"], "yolov4_csp", "yolov4-csp"),
        original(EAGER["yolov7-tiny"], "yolov7_tiny", "yolov7", fused=False),
        original(FUSED_YOLOV7, "yolov7_tiny", "yolov7", fused=True),
        *(ours(f"product {precision}", "at_product_rate", precision=precision) for precision in DTYPES),
    ]


def _publish(
    row: str, results: list[Result], ratio: float, against: Mapping[str, str] = EAGER, **facts: object
) -> None:
    ours, *others = results
    goals = [Goal(name, "ms", "less", ratio=ratio, against=against[name]) for name in SIZES]
    publish(row, [ours, *others], goals, contender=ours.name, sizes=SIZES, threads=THREADS, batch=1, **facts)


def detector(name: str) -> Detector:
    torch.manual_seed(0)
    return settled(build_model(name, CLASSES))


def settled(model: Module) -> Module:
    """The model in evaluation mode, with BatchNorm statistics from a batch of noise."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0)))
    return model.eval().requires_grad_(False)


def write_files(folder: Path) -> None:
    """ONNX and OpenVINO files of every model."""
    classes = [str(number) for number in range(CLASSES)]
    for name, size in SIZES.items():
        fused = for_inference(detector(name))
        export_onnx(fused, folder / f"{name}.onnx", classes=classes, size=size, opset=20)
        convert(fused, file_of(folder, name, "fp32"), classes=classes, size=size)
        noise = [torch.rand(1, 3, size, size) for _ in range(CALIBRATION_IMAGES)]
        quantise(file_of(folder, name, "fp32"), file_of(folder, name, "int8"), noise, len(noise))


def file_of(folder: Path, model: str, precision: Precision) -> Path:
    """OpenVINO's file; float32 and bfloat16 share one."""
    return folder / f"{model}{'_int8' if precision == 'int8' else ''}.xml"


def openvino(folder: str, precision: Precision) -> Round:
    files = {name: file_of(Path(folder), name, precision) for name in SIZES}
    return _round({name: OpenVINOPredictor(file, precision, THREADS) for name, file in files.items()})


def onnx_runtime(folder: str) -> Round:
    return _round({name: OnnxPredictor(Path(folder, f"{name}.onnx"), threads=THREADS) for name in SIZES})


def pytorch(precision: str) -> Round:
    """Fused and channels-last; bf16: weights and images."""
    torch.set_num_threads(THREADS)
    if precision == "fp32":
        return _round({name: Plain(for_inference(detector(name))) for name in SIZES})
    cast = {name: Plain(copy.deepcopy(for_inference(detector(name))).bfloat16()) for name in SIZES}
    return _round({name: partial(_in_bf16, plain) for name, plain in cast.items()})


def _in_bf16(plain: Predictor, images: Tensor) -> Tensor:
    return plain(images.bfloat16())


def unfused() -> Round:
    torch.set_num_threads(THREADS)
    return rounds_of({"yolov4-tiny": Plain(detector("yolov4-tiny"))}, torch.contiguous_format)


def _round(predictors: Mapping[str, Predictor]) -> Round:
    return rounds_of(predictors, torch.channels_last)  # as `to_device` lays images out


def rounds_of(predictors: Mapping[str, Callable[[Tensor], object]], layout: torch.memory_format) -> Round:
    """Median milliseconds per image of each predictor, at its size."""
    images = {name: torch.rand(1, 3, SIZES[name], SIZES[name]).to(memory_format=layout) for name in predictors}

    @torch.no_grad()
    def once() -> Figures:
        return {name: _milliseconds(predict, images[name], CALLS[name]) for name, predict in predictors.items()}

    return once


def at_product_rate(precision: str) -> Round:
    """A yardstick: the time of a model's convolutions at the rate of a large matrix product.

    NumPy's product in float32, which is faster than PyTorch's.
    """
    torch.set_num_threads(THREADS)
    operations = {name: deploy_cost(detector(name), size).gflops * 1e9 for name, size in SIZES.items()}
    multiply: Any = {"fp32": np.matmul, "bf16": torch.mm, "int8": getattr(torch, "_int_mm", None)}[precision]
    ones = torch.ones(PRODUCT, PRODUCT, dtype=DTYPES[precision])
    factor = ones.numpy() if precision == "fp32" else ones

    def once() -> Figures:
        rate = 2 * PRODUCT**3 / _milliseconds(lambda same: multiply(same, same), factor, 8)
        return {name: count / rate for name, count in operations.items()}

    return once


def _milliseconds(predict: Callable[[Input], object], images: Input, calls: int) -> float:
    spans = []
    for _ in range(1 + calls):
        began = time.perf_counter()
        predict(images)
        spans.append(time.perf_counter() - began)
    return 1000 * median(spans[1:])


if __name__ == "__main__":
    typer.run(main)
