"""Time a detector from image file to boxes, in PyTorch, ONNX Runtime, OpenVINO and TensorRT, on this machine."""

import copy
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from components.files import require
from components.params import Params
from components.stages.evaluate import for_inference, load_inputs
from components.stages.export import versions
from yolo_core import progress as progress_
from yolo_core.atomic import write_json
from yolo_core.data.coco import DetectionDataset
from yolo_core.data.letterbox import letterbox
from yolo_core.deploy import openvino, tensorrt
from yolo_core.deploy.cuda_graph import CudaGraph
from yolo_core.deploy.latency import percentiles, time_parts
from yolo_core.deploy.onnx import OnnxPredictor
from yolo_core.device import describe, pick_device
from yolo_core.errors import UserError
from yolo_core.evaluate.nms import nms
from yolo_core.evaluate.predict import to_device
from yolo_core.evaluate.tta import Plain, Predictor
from yolo_core.models.cost import footprint
from yolo_core.models.detector import Detector


class Backend(NamedTuple):
    """One way to run the detector."""

    name: str
    precision: str
    predictor: Predictor


def run(
    params: Params,
    *,
    model: str,
    data: Path,
    weights: Path,
    export: Path,
    out: Path,
    drop_levels: int = 0,
    size: int | None = None,
    progress: progress_.Progress = progress_.silent,
) -> dict[str, Any]:
    """Write benchmark.json to `out`.

    A run reads validation images from their files, letterboxes them, infers, and suppresses at `export.nms_conf`, as a
    service would. Batch 1 is always among the batches. drop_levels, size: see `components.stages.evaluate.load_inputs`.
    """
    device = pick_device(params.train.device)
    loaded, dataset = load_inputs(model, data, weights, device=params.train.device, drop_levels=drop_levels, size=size)
    plain = require(export / "model.onnx", "export")
    fused = for_inference(loaded.model)
    threads = params.benchmark.threads or len(os.sched_getaffinity(0))
    with torch_threads(threads):
        cases = [
            (backend, batch)
            for backend in backends(fused, loaded.size, plain, export, device, threads)
            for batch in sorted({1, *params.benchmark.batches})
        ]
        rows = [
            measure(backend, batch, dataset, loaded.size, params, device)
            for backend, batch in progress(cases, "benchmark", total=len(cases))
        ]
        report = {"model": model, "size": loaded.size, "device": machine(device, threads)}
        report["graph"] = asdict(footprint(loaded.model, loaded.size))
    # What promotion compares goes with the AP that `evaluate` measured: int8 has another.
    exact = (row for row in rows if row["batch"] == 1 and row["precision"] != "int8")
    best = min(exact, key=lambda row: row["total_ms"]["p50"])
    name = f"{best['backend']} {best['precision']}"
    report |= {
        "versions": versions("torch", "onnxruntime", "openvino", "tensorrt", "numpy", "opencv-python-headless"),
        "runs": params.benchmark.runs,
        "conf": params.export.nms_conf,
        "latency_ms_b1": best["total_ms"]["p50"],
        "latency_backend_b1": name,
        "rows": rows,
    }
    write_json(out / "benchmark.json", report)
    return {"ms at batch 1": best["total_ms"]["p50"], "images/s": best["images_per_second"], "by": name}


def backends(
    fused: Detector, size: int, plain: Path, export: Path, device: torch.device, threads: int
) -> list[Backend]:
    """Every backend that can run here; float16 on CUDA alone, OpenVINO on the CPU alone."""
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
    rows = json.loads(require(export / "export.json", "export").read_text(encoding="utf-8")).get("openvino", {})
    return [
        Backend("OpenVINO CPU", precision, openvino.OpenVINOPredictor(export / row["file"], precision, threads))
        for precision, row in rows.items()
        if row["status"] == "built" and not openvino.why_not(precision)
    ]


def _check_same(path: Path, onnx: OnnxPredictor, model: Detector, size: int) -> None:
    """UserError unless the exported graph is of this model, at this size and with these levels."""
    wanted = {"model": model.spec.name, "size": size, "strides": list(model.strides)}
    found = {name: onnx.metadata.get(name) for name in wanted}
    if found != wanted:
        raise UserError(
            f"{path}: exported as {found}, to be timed as {wanted}; run `scaled-yolov4 export` with the same options"
        )


def measure(
    backend: Backend, batch: int, dataset: DetectionDataset, size: int, params: Params, device: torch.device
) -> dict[str, Any]:
    """One row: the parts apart and together, p50/p90/p99 in ms per batch, and images per second overall."""
    suppression = replace(params.evaluate.suppression, conf=params.export.nms_conf)
    parts: dict[str, Callable[[Any], Any]] = {
        "preprocess": lambda number: preprocess(dataset, range(number * batch, (number + 1) * batch), size, device),
        "inference": lambda images: backend.predictor(images),
        "postprocess": lambda predictions: nms(predictions, suppression),
    }
    spans = time_parts(parts, warmup=params.benchmark.warmup, runs=params.benchmark.runs, device=device)
    return {
        "backend": backend.name,
        "precision": backend.precision,
        "batch": batch,
        **{f"{part}_ms": percentiles(times) for part, times in spans.items()},
        "images_per_second": round(batch * 1000 / float(spans["total"].mean()), 2),
    }


def preprocess(dataset: DetectionDataset, numbers: range, size: int, device: torch.device) -> Tensor:
    """Decode, letterbox and stack images, taken in turn from the data set: (B, 3, size, size) float32 on `device`."""
    canvases = [letterbox(dataset.load(number % len(dataset)), (size, size))[0] for number in numbers]
    return to_device(torch.from_numpy(np.stack(canvases)).permute(0, 3, 1, 2), device)


def machine(device: torch.device, threads: int) -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "name": describe(device),
        "type": device.type,
        "threads": threads,
        "tf32": device.type == "cuda" and torch.backends.cudnn.allow_tf32,
    }


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """PyTorch on `count` CPU threads, for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _half(fused: Detector) -> Predictor:
    plain = Plain(copy.deepcopy(fused).half())
    return lambda images: plain(images.half())
