"""The engines of TensorRT that the stage `export` builds."""

import copy
from collections.abc import Mapping
from pathlib import Path

import torch

from components.deployment.graph_check import GraphCheck
from components.deployment.versions import versions
from components.params import Params
from yolo_core.deploy import tensorrt
from yolo_core.deploy.graph import facts
from yolo_core.deploy.onnx import export_onnx
from yolo_core.device import describe, pick_device
from yolo_core.errors import advised
from yolo_core.evaluate.tta import Plain
from yolo_core.models.detector import Detector


def build_engines(
    model: Detector, plain: Path, out: Path, *, classes: list[str], check: GraphCheck, params: Params
) -> dict[str, Mapping[str, object]]:
    """Build and check the engines of a fused detector in the requested precisions.

    plain: its float32 ONNX file. Returns by precision what was built and how far it is off, or why it was skipped.
    """
    device = pick_device(params.train.device)
    reason = tensorrt.why_not(device)
    if reason:
        return {precision: {"status": "skipped", "reason": reason} for precision in params.export.tensorrt}
    reference = Plain(_copy_on(model, device))
    report: dict[str, Mapping[str, object]] = {}
    for precision in params.export.tensorrt:
        engine, source = out / f"model_{precision}.engine", plain
        if precision == "fp16":
            source = out / "model_fp16.onnx"
            half = _copy_on(model, device).half()
            export_onnx(half, source, classes=classes, size=check.size, opset=params.export.opset, half=True)
        with advised("set export.tensorrt to [] to skip TensorRT"):
            most = max(tensorrt.MAX_BATCH, *params.benchmark.batches)
            tensorrt.build_engine(source, engine, facts(model, classes, check.size), most)
        if source != plain:
            source.unlink()
        built = tensorrt.TensorRTPredictor(engine, device)
        measured = check.predictions(reference, {precision: built}, f"check {engine.name}", device)[precision]
        made_with = {"device": describe(device), **versions("tensorrt")}
        report[precision] = {"status": "built", "file": engine.name, **made_with, **measured}
    return report


def _copy_on(model: Detector, device: torch.device) -> Detector:
    """A copy of an already fused model on another device."""
    return copy.deepcopy(model).to(device)
