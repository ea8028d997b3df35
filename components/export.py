"""Export a trained detector to ONNX (and TensorRT where it can run) and check the files against PyTorch."""

import copy
import platform
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from components.evaluate import load_inputs, suppression
from components.params import EvaluateParams, ExportParams, Params
from yolo_core import progress as progress_
from yolo_core.atomic import write_json
from yolo_core.data.coco import DetectionDataset
from yolo_core.data.loader import EvalBatch, val_batches
from yolo_core.deploy import tensorrt
from yolo_core.deploy.onnx import OnnxPredictor, add_nms, export_onnx, open_session, run_nms
from yolo_core.device import describe, pick_device
from yolo_core.errors import UserError
from yolo_core.evaluate.coco_metrics import score
from yolo_core.evaluate.nms import nms
from yolo_core.evaluate.predict import batch_results, to_device
from yolo_core.evaluate.tta import Plain, Predictor
from yolo_core.models.detector import Detector
from yolo_core.models.fuse import fuse

CHECK_BATCH = 4  # images


def run(
    params: Params,
    *,
    model: str,
    data: Path,
    weights: Path,
    out: Path,
    drop_levels: int = 0,
    size: int | None = None,
    progress: progress_.Progress = progress_.silent,
) -> dict[str, Any]:
    """Write model.onnx, model_nms.onnx, engines where TensorRT runs, and export.json to `out`.

    drop_levels, size: as for `components.evaluate.load_inputs`.
    Raises UserError when a file's numbers differ from PyTorch's by more than the tolerances; export.json then still
    holds what was measured.
    """
    loaded, dataset = load_inputs(model, data, weights, drop_levels=drop_levels, size=size)
    settings, evaluation = params.export, params.evaluate
    fused = fuse(loaded.model)
    plain, with_nms = out / "model.onnx", out / "model_nms.onnx"
    export_onnx(fused, plain, classes=loaded.classes, size=loaded.size, opset=settings.opset)
    add_nms(plain, with_nms, conf=settings.nms_conf, iou=evaluation.iou, max_detections=evaluation.max_detections)

    check = Check(dataset.subset(_spread(len(dataset), settings.check_images)), loaded.size, evaluation, progress)
    reference = Plain(fused)
    report = {
        "model": model,
        "size": loaded.size,
        "strides": list(fused.strides),
        "opset": settings.opset,
        "images": len(check.dataset),
        "tolerance": settings.tolerance,
        "ap_tolerance": settings.ap_tolerance,
        "onnx": check.predictions(reference, OnnxPredictor(plain), "check model.onnx"),
        "onnx_nms": check.detections(reference, open_session(with_nms), "check model_nms.onnx", settings.nms_conf),
        "tensorrt": _engines(fused, loaded.classes, plain, out, check, params),
        "bytes": {path.name: path.stat().st_size for path in (plain, with_nms)},
        "versions": versions("torch", "onnx", "onnxruntime"),
    }
    write_json(out / "export.json", report)
    refuse_if_off(report, settings)
    return {
        "relative error": report["onnx"]["relative_error"],
        "AP difference": report["onnx"]["ap_difference"],
        "tensorrt": ", ".join(f"{name} {engine['status']}" for name, engine in report["tensorrt"].items()) or "off",
    }


class Check:
    """Measures graphs against PyTorch on validation images, on square canvases of the exported size."""

    def __init__(
        self, dataset: DetectionDataset, size: int, evaluation: EvaluateParams, progress: progress_.Progress
    ) -> None:
        self.dataset = dataset
        self.size = size
        self.evaluation = evaluation
        self.progress = progress

    @torch.no_grad()
    def predictions(
        self, reference: Predictor, candidate: Predictor, label: str, device: torch.device | str = "cpu"
    ) -> dict[str, float | None]:
        """Largest differences of boxes and probabilities (see `differences`), and AP of either."""
        errors, wanted, got = [], [], []
        limits = suppression(self.evaluation)
        for part, images in self._batches(label, device):
            expected, found = reference(images).cpu(), candidate(images).cpu()
            errors.append(differences(expected, found))
            wanted += self._results(part, nms(expected, **limits))
            got += self._results(part, nms(found, **limits))
        names = ("box_error_px", "probability_error", "relative_error")
        return {**dict(zip(names, np.max(errors, 0).tolist(), strict=True)), **self._ap(wanted, got)}

    @torch.no_grad()
    def detections(self, reference: Predictor, session: Any, label: str, conf: float) -> dict[str, float | None]:
        """AP of a graph with NMS, and of PyTorch followed by our own suppression at the same lowest score."""
        wanted, got = [], []
        limits = {**suppression(self.evaluation), "conf": conf}
        for part, images in self._batches(label, "cpu"):
            wanted += self._results(part, nms(reference(images), **limits))
            got += self._results(part, [rows[: limits["max_detections"]] for rows in run_nms(session, images)])
        return self._ap(wanted, got)

    def _batches(self, label: str, device: torch.device | str) -> Iterator[tuple[EvalBatch, Tensor]]:
        batches = val_batches(self.dataset, size=self.size, batch=CHECK_BATCH, rect=False)
        for part in self.progress(batches, label, total=len(batches)):
            yield part, to_device(part.images, device)

    def _results(self, part: EvalBatch, kept: list[Tensor]) -> list[dict[str, Any]]:
        return [found for image in batch_results(part, kept, self.dataset).values() for found in image]

    def _ap(self, wanted: list[dict[str, Any]], got: list[dict[str, Any]]) -> dict[str, float | None]:
        ids = [record.id for record in self.dataset.images]
        expected, found = (score(self.dataset.annotation_path, results, ids).figures["AP"] for results in (wanted, got))
        difference = None if expected is None or found is None else abs(found - expected)
        return {"ap_pytorch": expected, "ap": found, "ap_difference": difference}


def differences(expected: Tensor, found: Tensor) -> tuple[float, float, float]:
    """Largest differences between two (B, N, 5+K): of boxes in px, of probabilities, and the larger of the two as a
    fraction of the largest box number and of 1."""
    gap = (expected - found).abs()
    box, probability = gap[..., :4].max().item(), gap[..., 4:].max().item()
    return box, probability, max(box / max(expected[..., :4].abs().max().item(), 1), probability)


def refuse_if_off(report: dict[str, Any], settings: ExportParams) -> None:
    """UserError when a float32 file differs from PyTorch by more than the parameters allow."""
    engines = report["tensorrt"]
    rows = {
        "model.onnx": report["onnx"],
        "model_nms.onnx": report["onnx_nms"],
        "model_fp32.engine": engines.get("fp32"),
    }
    limits = {
        "relative_error": ("tolerance", settings.tolerance),
        "ap_difference": ("ap_tolerance", settings.ap_tolerance),
    }
    for file, row in rows.items():
        for figure, (key, allowed) in limits.items():
            value = (row or {}).get(figure)
            if value is not None and not value <= allowed:
                raise UserError(
                    f"{file}: {figure.replace('_', ' ')} to PyTorch is {value:.3g}, over export.{key} = {allowed:g}; "
                    "see export.json, try another export.opset, or raise the tolerance if this is acceptable"
                )


def _engines(
    model: Detector,
    classes: list[str],
    plain: Path,
    out: Path,
    check: Check,
    params: Params,
) -> dict[str, dict[str, Any]]:
    """Build and check the engines asked for; where that is impossible, the reason instead."""
    device = pick_device(params.train.device)
    reason = tensorrt.why_not(device)
    if reason:
        return {precision: {"status": "skipped", "reason": reason} for precision in params.export.tensorrt}
    reference = Plain(_copy_on(model, device))
    report = {}
    for precision in params.export.tensorrt:
        engine, source = out / f"model_{precision}.engine", plain
        if precision == "fp16":
            source = out / "model_fp16.onnx"
            half = _copy_on(model, device).half()
            export_onnx(half, source, classes=classes, size=check.size, opset=params.export.opset, half=True)
        tensorrt.build_engine(source, engine, max(tensorrt.MAX_BATCH, *params.benchmark.batches))
        if source != plain:
            source.unlink()
        built = tensorrt.TensorRTPredictor(engine, device)
        measured = check.predictions(reference, built, f"check {engine.name}", device)
        made_with = {"device": describe(device), **versions("tensorrt")}
        report[precision] = {"status": "built", "file": engine.name, **made_with, **measured}
    return report


def _copy_on(model: Detector, device: torch.device) -> Detector:
    """A copy of an already fused model on another device."""
    return copy.deepcopy(model).to(device)


def versions(*packages: str) -> dict[str, str]:
    """Python and the installed version of each package; one that is absent is left out."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _spread(count: int, wanted: int) -> list[int]:
    """Up to `wanted` indices spread evenly over `count`."""
    return np.unique(np.linspace(0, count - 1, min(wanted, count)).round().astype(int)).tolist()
