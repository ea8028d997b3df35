"""The stage `export`: a detector as ONNX, and as OpenVINO and TensorRT where available, checked against PyTorch."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from components import made_of
from components.deployment.export_report import ExportReport, refuse_if_off, reject_int8_if_worse
from components.deployment.graph_check import GraphCheck
from components.deployment.openvino_files import build_openvino
from components.deployment.tensorrt_engines import build_engines
from components.deployment.versions import versions
from components.evaluation.inputs import load_inputs
from components.files import EXPORT, GRAPH, GRAPH_WITH_NMS, MANIFEST
from components.params import Params
from yolo_core import progress as progress_
from yolo_core.atomic import write_json
from yolo_core.deploy.onnx import OnnxPredictor, export_onnx, open_session
from yolo_core.deploy.onnx_nms import add_nms
from yolo_core.errors import known_as
from yolo_core.evaluate.tta import Plain
from yolo_core.models.fuse import fuse


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
) -> dict[str, float | str | None]:
    """Write model.onnx, model_nms.onnx, OpenVINO files, TensorRT engines and export.json to `out`.

    drop_levels, size: see `load_inputs`.
    Raises UserError when a file's outputs differ from PyTorch's by more than the tolerances; export.json is written
    even then.
    """
    loaded, dataset = load_inputs(model, data, weights, drop_levels=drop_levels, size=size)
    settings, evaluation = params.export, params.evaluate
    classes, fused = loaded.classes, fuse(loaded.model)
    plain, with_nms = out / GRAPH, out / GRAPH_WITH_NMS
    in_graph = replace(evaluation.suppression, conf=settings.nms_conf)
    with known_as(opset="export.opset"):
        export_onnx(fused, plain, classes=classes, size=loaded.size, opset=settings.opset)
    add_nms(plain, with_nms, in_graph)
    openvino_rows, openvino_predictors = build_openvino(
        fused, out, classes=classes, size=loaded.size, data=data, settings=settings, progress=progress
    )

    check = GraphCheck(dataset.spread(settings.check_images), loaded.size, evaluation, progress)
    reference = Plain(fused)
    measured = check.predictions(reference, {"onnx": OnnxPredictor(plain), **openvino_predictors}, "check")
    report: ExportReport = {
        "model": model,
        "size": loaded.size,
        "strides": list(fused.strides),
        "opset": settings.opset,
        "images": len(check.dataset),
        "tolerance": settings.tolerance,
        "ap_tolerance": settings.ap_tolerance,
        "int8_ap_tolerance": settings.int8_ap_tolerance,
        "onnx": measured["onnx"],
        "onnx_nms": check.detections(reference, open_session(with_nms), "check model_nms.onnx", in_graph),
        "openvino": {p: {**row, **measured[p]} if p in measured else row for p, row in openvino_rows.items()},
        "tensorrt": build_engines(fused, plain, out, classes=classes, check=check, params=params),
        "versions": versions("torch", "onnx", "onnxruntime", "openvino", "nncf"),
    }
    if "int8" in report["openvino"]:
        int8 = reject_int8_if_worse(report["openvino"]["int8"], settings.int8_ap_tolerance, out)
        report["openvino"]["int8"] = int8
    report["bytes"] = {path.name: path.stat().st_size for path in sorted(out.glob("model*"))}
    write_json(out / EXPORT, report)
    made_of.record(out / EXPORT, weights=weights, manifest=data / MANIFEST)
    refuse_if_off(report, settings)
    return {
        "relative error": report["onnx"]["relative_error"],
        "AP difference": report["onnx"]["ap_difference"],
        "openvino": _statuses(report["openvino"].items()),
        "tensorrt": _statuses(report["tensorrt"].items()),
    }


def _statuses(rows: Iterable[tuple[str, Mapping[str, object]]]) -> str:
    return ", ".join(f"{name} {row['status']}" for name, row in rows) or "off"
