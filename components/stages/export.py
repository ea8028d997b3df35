"""Export a trained detector to ONNX, and to OpenVINO and TensorRT where they run; check the files against PyTorch."""

import copy
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from components.params import EvaluateParams, ExportParams, Params
from components.stages.evaluate import load_inputs
from yolo_core import progress as progress_
from yolo_core.atomic import write_json
from yolo_core.data.coco import DetectionDataset, load_split
from yolo_core.data.loader import EvalBatch, val_batches
from yolo_core.deploy import openvino, tensorrt
from yolo_core.deploy.onnx import OnnxPredictor, add_nms, export_onnx, open_session, run_nms
from yolo_core.device import describe, pick_device
from yolo_core.errors import UserError
from yolo_core.evaluate.coco_metrics import score
from yolo_core.evaluate.detections import Detections
from yolo_core.evaluate.nms import nms
from yolo_core.evaluate.predict import batch_results, to_device
from yolo_core.evaluate.suppression import Suppression
from yolo_core.evaluate.tta import Plain, Predictor
from yolo_core.models.detector import Detector
from yolo_core.models.fuse import fuse

CHECK_BATCH = 4  # images
OPENVINO = {"fp32": "model_openvino.xml", "bf16": "model_openvino.xml", "int8": "model_openvino_int8.xml"}


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
    """Write model.onnx, model_nms.onnx, files of OpenVINO and engines of TensorRT, and export.json to `out`.

    drop_levels, size: as for `components.stages.evaluate.load_inputs`.
    Raises UserError when a file's numbers differ from PyTorch's by more than the tolerances; export.json then still
    holds what was measured.
    """
    loaded, dataset = load_inputs(model, data, weights, drop_levels=drop_levels, size=size)
    settings, evaluation = params.export, params.evaluate
    fused = fuse(loaded.model)
    plain, with_nms = out / "model.onnx", out / "model_nms.onnx"
    export_onnx(fused, plain, classes=loaded.classes, size=loaded.size, opset=settings.opset)
    in_graph = replace(evaluation.suppression, conf=settings.nms_conf)
    add_nms(plain, with_nms, in_graph)

    check = Check(dataset.subset(_spread(len(dataset), settings.check_images)), loaded.size, evaluation, progress)
    reference = Plain(fused)
    openvino_rows, openvino_predictors = _openvino(fused, loaded.classes, data, out, check, settings)
    candidates = {"onnx": OnnxPredictor(plain), **openvino_predictors}
    measured = check.predictions(reference, candidates, "check")
    report = {
        "model": model,
        "size": loaded.size,
        "strides": list(fused.strides),
        "opset": settings.opset,
        "images": len(check.dataset),
        "tolerance": settings.tolerance,
        "ap_tolerance": settings.ap_tolerance,
        "int8_ap_tolerance": settings.int8_ap_tolerance,
        "onnx": measured.pop("onnx"),
        "onnx_nms": check.detections(reference, open_session(with_nms), "check model_nms.onnx", in_graph),
        "openvino": {p: row | measured.get(p, {}) for p, row in openvino_rows.items()},
        "tensorrt": _engines(fused, loaded.classes, plain, out, check, params),
        "versions": versions("torch", "onnx", "onnxruntime", "openvino", "nncf"),
    }
    reject_int8_if_worse(report, out)
    report["bytes"] = {path.name: path.stat().st_size for path in sorted(out.glob("model*"))}
    write_json(out / "export.json", report)
    refuse_if_off(report, settings)
    return {
        "relative error": report["onnx"]["relative_error"],
        "AP difference": report["onnx"]["ap_difference"],
        **{runtime: _statuses(report[runtime]) for runtime in ("openvino", "tensorrt")},
    }


def _statuses(rows: dict[str, dict[str, Any]]) -> str:
    return ", ".join(f"{name} {row['status']}" for name, row in rows.items()) or "off"


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
        self, reference: Predictor, candidates: Mapping[str, Predictor], label: str, device: torch.device | str = "cpu"
    ) -> dict[str, dict[str, float | None]]:
        """For each candidate its largest differences to the reference (see `differences`), and AP of either."""
        errors: dict[str, list[tuple[float, float, float]]] = {name: [] for name in candidates}
        got: dict[str, list[Detections]] = {name: [] for name in candidates}
        wanted = []
        suppression = self.evaluation.suppression
        for part, images in self._batches(label, device):
            expected = reference(images).cpu()
            wanted += self._results(part, nms(expected, suppression))
            for name, candidate in candidates.items():
                found = candidate(images).cpu()
                errors[name].append(differences(expected, found))
                got[name] += self._results(part, nms(found, suppression))
        figures = ("box_error_px", "probability_error", "relative_error")
        return {
            name: {**dict(zip(figures, np.max(errors[name], 0).tolist(), strict=True)), **self._ap(wanted, got[name])}
            for name in candidates
        }

    @torch.no_grad()
    def detections(
        self, reference: Predictor, session: Any, label: str, suppression: Suppression
    ) -> dict[str, float | None]:
        """AP of a graph with this NMS, and of PyTorch followed by our own."""
        wanted, got = [], []
        for part, images in self._batches(label, "cpu"):
            wanted += self._results(part, nms(reference(images), suppression))
            got += self._results(part, [rows[: suppression.max_detections] for rows in run_nms(session, images)])
        return self._ap(wanted, got)

    def _batches(self, label: str, device: torch.device | str) -> Iterator[tuple[EvalBatch, Tensor]]:
        batches = val_batches(self.dataset, size=self.size, batch=CHECK_BATCH, rect=False)
        for part in self.progress(batches, label, total=len(batches)):
            yield part, to_device(part.images, device)

    def _results(self, part: EvalBatch, kept: list[Tensor]) -> list[Detections]:
        return list(batch_results(part, kept, self.dataset).values())

    def _ap(self, wanted: list[Detections], got: list[Detections]) -> dict[str, float | None]:
        ids, judge = [record.id for record in self.dataset.images], self.evaluation.judge
        expected, found = (
            score(self.dataset.annotation_path, Detections.joined(parts), ids, judge).figures["AP"]
            for parts in (wanted, got)
        )
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
    rows = {
        "model.onnx": report["onnx"],
        "model_nms.onnx": report["onnx_nms"],
        OPENVINO["fp32"]: report["openvino"].get("fp32"),
        "model_fp32.engine": report["tensorrt"].get("fp32"),
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


def reject_int8_if_worse(report: dict[str, Any], out: Path) -> None:
    """Where INT8 loses more AP than `int8_ap_tolerance` to PyTorch, say so in its row and remove its files."""
    row = report["openvino"].get("int8", {})
    if row.get("status") != "built":
        return
    loss, allowed = (row["ap_pytorch"] or 0) - (row["ap"] or 0), report["int8_ap_tolerance"]
    if loss > allowed:
        row["status"] = "rejected"
        row["reason"] = f"it loses {loss:.4f} AP, over export.int8_ap_tolerance = {allowed:g}"
        file = out / row.pop("file")
        file.unlink()
        file.with_suffix(".bin").unlink()


@dataclass(frozen=True)
class Calibration:
    """Training images as a quantiser takes them, each (1, 3, size, size) float32; every iteration starts anew."""

    dataset: DetectionDataset
    size: int
    progress: progress_.Progress

    def __iter__(self) -> Iterator[Tensor]:
        batches = val_batches(self.dataset, size=self.size, batch=1, rect=False)
        for part in self.progress(batches, "calibrate int8", total=len(batches)):
            yield to_device(part.images, "cpu")


def _openvino(
    model: Detector, classes: list[str], data: Path, out: Path, check: Check, settings: ExportParams
) -> tuple[dict[str, dict[str, Any]], dict[str, Predictor]]:
    """Write the files asked for; per precision what became of it, or why it is not there, and the file opened."""
    rows: dict[str, dict[str, Any]] = {}
    predictors: dict[str, Predictor] = {}
    source = out / OPENVINO["fp32"]
    for precision in settings.openvino:
        reason = openvino.why_not_made(precision)
        if reason:
            rows[precision] = {"status": "skipped", "reason": reason}
            continue
        if not predictors:
            openvino.convert(model, source, classes=classes, size=check.size)
        file = out / OPENVINO[precision]
        if precision == "int8":
            training = load_split(data, "train")
            chosen = training.subset(_spread(len(training), settings.calibration_images))
            openvino.quantise(source, file, Calibration(chosen, check.size, check.progress), len(chosen))
        predictors[precision] = openvino.OpenVINOPredictor(file, precision)
        rows[precision] = {"status": "built", "file": file.name}
    return rows, predictors


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
        measured = check.predictions(reference, {precision: built}, f"check {engine.name}", device)[precision]
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
