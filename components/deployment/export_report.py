"""What the stage `export` reports of its files, and the tolerances these are held to."""

from collections.abc import Mapping
from pathlib import Path
from typing import NotRequired, Required, TypedDict

from components.deployment.graph_check import NmsDifference, PredictionDifference
from components.files import EXPORT, GRAPH, GRAPH_WITH_NMS
from components.params import ExportParams
from yolo_core.deploy.openvino import Precision
from yolo_core.errors import UserError

OPENVINO_FILES: dict[Precision, str] = {
    "fp32": "model_openvino.xml",
    "bf16": "model_openvino.xml",
    "int8": "model_openvino_int8.xml",
}


class RuntimeRow(TypedDict, total=False):
    """One precision of OpenVINO. A file that was built also has what `PredictionDifference` holds."""

    status: Required[str]
    """built, skipped (cannot be made here) or rejected (loses too much AP)."""

    reason: str
    """Why it was skipped or rejected."""

    file: str
    """Name of the file; absent unless built."""

    box_error_px: float
    probability_error: float
    relative_error: float
    ap_pytorch: float | None
    ap: float | None
    ap_difference: float | None


class ExportReport(TypedDict):
    """The content of export.json."""

    model: str
    """Name of the detector."""

    size: int
    """H = W of the input, px."""

    strides: list[int]
    """Strides of the detection levels in the graph, px."""

    opset: int
    """ONNX opset of model.onnx."""

    images: int
    """Validation images that were checked on."""

    tolerance: float
    """Largest `relative_error` of a float32 graph."""

    ap_tolerance: float
    """Largest `ap_difference` of a float32 graph."""

    int8_ap_tolerance: float
    """Largest loss of AP of an INT8 graph."""

    onnx: PredictionDifference
    """model.onnx against PyTorch."""

    onnx_nms: NmsDifference
    """model_nms.onnx against PyTorch."""

    openvino: dict[Precision, RuntimeRow]
    """OpenVINO graphs by precision."""

    tensorrt: dict[str, Mapping[str, object]]
    """TensorRT engines by precision: OpenVINO's fields, and the device and versions an engine was built with."""

    versions: dict[str, str]
    """Versions of Python and the packages that made the files."""

    bytes: NotRequired[dict[str, int]]
    """Size of each file by name."""


def reject_int8_if_worse(row: RuntimeRow, allowed: float, out: Path) -> RuntimeRow:
    """The row of INT8; where it loses more AP than `allowed` against PyTorch, it says so and its files are removed.

    Where the images have no objects the loss is unknown, and it is rejected as well.
    """
    if row["status"] != "built":
        return row
    expected, found = row.get("ap_pytorch"), row.get("ap")
    if expected is None or found is None:
        reason = "its AP cannot be measured: the validation images have no objects"
    elif expected - found > allowed:
        reason = f"it loses {expected - found:.4f} AP, over export.int8_ap_tolerance = {allowed:g}"
    else:
        return row
    rejected = row.copy()
    rejected["status"] = "rejected"
    rejected["reason"] = reason
    file = out / rejected.pop("file", "")
    file.unlink()
    file.with_suffix(".bin").unlink()
    return rejected


def refuse_if_off(report: ExportReport, settings: ExportParams) -> None:
    """UserError when a float32 file differs from PyTorch by more than the parameters allow."""
    nms = report["onnx_nms"]
    if nms["detections"] > nms["max_detections"]:
        raise UserError(
            f"{GRAPH_WITH_NMS}: returns {nms['detections']} detections for an image, over evaluate.max_detections = "
            f"{nms['max_detections']}; try another export.opset or another version of onnxruntime"
        )
    rows: dict[str, Mapping[str, object] | None] = {
        GRAPH: report["onnx"],
        GRAPH_WITH_NMS: report["onnx_nms"],
        OPENVINO_FILES["fp32"]: report["openvino"].get("fp32"),
        "model_fp32.engine": report["tensorrt"].get("fp32"),
    }
    limits = {
        "relative_error": ("tolerance", settings.tolerance),
        "ap_difference": ("ap_tolerance", settings.ap_tolerance),
    }
    for file, row in rows.items():
        for figure, (key, allowed) in limits.items():
            value = (row or {}).get(figure)
            if isinstance(value, float) and not value <= allowed:
                raise UserError(
                    f"{file}: {figure.replace('_', ' ')} against PyTorch is {value:.3g}, over "
                    f"export.{key} = {allowed:g}; see {EXPORT}, try "
                    "another export.opset, or raise the tolerance if this is acceptable"
                )
