"""The export stage on a small detector: files, report, and the refusal of inaccurate outputs."""

import json
import sys

import pytest
import small_detector
import torch

from components.deployment.export_report import refuse_if_off, reject_int8_if_worse
from components.deployment.graph_check import differences
from components.parameter_file import load
from components.stages import export
from yolo_core.deploy import openvino
from yolo_core.deploy.onnx import OnnxPredictor
from yolo_core.errors import UserError


@pytest.fixture(scope="module")
def out(exported):
    return exported


def run(project, out, *overrides):
    params = load(small_detector.ROOT / "params.yaml", ["export.check_images=4", *overrides])
    return export.run(params, model=small_detector.MODEL, data=project.data, weights=project.weights, out=out)


def test_files_and_report(out):
    report = json.loads((out / "export.json").read_text())
    files = {path.name for path in out.iterdir()}
    assert {name for name in files if "openvino" not in name} == {"model.onnx", "model_nms.onnx", "export.json"}
    assert set(report["bytes"]) == files - {"export.json"}
    assert report["images"] == 4
    assert report["bytes"]["model.onnx"] == (out / "model.onnx").stat().st_size
    assert 0 < report["onnx"]["relative_error"] < 1e-4
    for row in (report["onnx"], report["onnx_nms"]):
        assert row["ap_pytorch"] > 0.5, "the ground truth is what the detector finds"
        assert row["ap_difference"] <= 0.001
    assert report["versions"].keys() >= {"python", "torch", "onnx", "onnxruntime"}


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_openvino_files_are_written_and_measured(out, precision):
    pytest.importorskip("nncf")
    if openvino.why_not(precision):
        pytest.skip(str(openvino.why_not(precision)))
    row = json.loads((out / "export.json").read_text())["openvino"][precision]
    assert row["ap_pytorch"] > 0.5
    if precision == "int8" and row["status"] == "rejected":
        assert row["ap_pytorch"] - row["ap"] > 0.005
        assert not (out / "model_openvino_int8.xml").exists()
        return
    assert row["status"] == "built"
    assert openvino.OpenVINOPredictor(out / row["file"], precision).size == small_detector.SIZE
    limits = {"fp32": (0, 1e-4), "bf16": (1e-4, 0.2), "int8": (1e-3, 0.5)}  # the coarser, the less accurate
    least, most = limits[precision]
    assert least < row["relative_error"] < most


def test_int8_that_loses_too_much_is_not_kept(tmp_path):
    def report_of(ap):
        for name in ("int8.xml", "int8.bin"):
            (tmp_path / name).touch()
        row = {"status": "built", "file": "int8.xml", "ap_pytorch": 0.5, "ap": ap}
        return reject_int8_if_worse(row, 0.005, tmp_path)

    assert report_of(0.51)["status"] == report_of(0.496)["status"] == "built"
    assert len(list(tmp_path.iterdir())) == 2
    rejected = report_of(0.49)
    assert rejected["status"] == "rejected"
    assert rejected["reason"] == "it loses 0.0100 AP, over export.int8_ap_tolerance = 0.005"
    assert "file" not in rejected
    assert not list(tmp_path.iterdir())


def test_int8_that_cannot_be_measured_is_not_kept(tmp_path):
    for name in ("int8.xml", "int8.bin"):
        (tmp_path / name).touch()
    row = {"status": "built", "file": "int8.xml", "ap_pytorch": None, "ap": None}
    rejected = reject_int8_if_worse(row, 0.005, tmp_path)
    assert rejected["status"] == "rejected"
    assert rejected["reason"] == "its AP cannot be measured: the validation images have no objects"
    assert not list(tmp_path.iterdir())


def test_what_is_not_installed_is_skipped_with_its_reason(project, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    summary = run(project, tmp_path, "export.openvino=[fp32,int8]")
    rows = json.loads((tmp_path / "export.json").read_text())["openvino"]
    reason = "the openvino package is not installed (pip install 'scaled-yolov4[openvino]')"
    assert rows == {p: {"status": "skipped", "reason": reason} for p in ("fp32", "int8")}
    assert summary["openvino"] == "fp32 skipped, int8 skipped"


@pytest.mark.skipif(torch.cuda.is_available(), reason="shows what happens without a GPU")
def test_engines_that_cannot_be_built_leave_their_reason(out):
    report = json.loads((out / "export.json").read_text())
    assert report["tensorrt"] == {
        precision: {"status": "skipped", "reason": "no CUDA device"} for precision in ("fp32", "fp16")
    }


def test_the_file_is_named_and_sized_like_its_model(out):
    assert OnnxPredictor(out / "model.onnx").metadata["size"] == small_detector.SIZE


def test_numbers_over_the_tolerance_are_a_fault(project, tmp_path):
    message = r"model.onnx: relative error against PyTorch is .*, over export.tolerance = 1e-12"
    with pytest.raises(UserError, match=message):
        run(project, tmp_path, "export.tolerance=1.0e-12", "export.openvino=[]")
    assert json.loads((tmp_path / "export.json").read_text())["tolerance"] == 1e-12


def test_a_lower_ap_is_a_fault():
    settings = load(small_detector.ROOT / "params.yaml").export
    fine = {"relative_error": 1e-6, "ap_difference": 0.0}
    reduced = {"openvino": {"bf16": {"ap_difference": 0.5}}, "tensorrt": {"fp16": {"ap_difference": 0.5}}}
    report = {"onnx": fine, "onnx_nms": {"ap_difference": 0.02, "detections": 1, "max_detections": 1}, **reduced}
    with pytest.raises(UserError, match=r"model_nms.onnx: ap difference .* 0.02, over export.ap_tolerance = 0.001"):
        refuse_if_off(report, settings)
    report["onnx_nms"] = {"ap_difference": None, "detections": 1, "max_detections": 1}
    refuse_if_off(report, settings)
    with pytest.raises(UserError, match=r"model_openvino\.xml: relative error"):
        refuse_if_off({**report, "openvino": {"fp32": {"relative_error": 0.01}}}, settings)
    with pytest.raises(UserError, match="nan"):
        refuse_if_off({**report, "onnx": {"relative_error": float("nan")}}, settings)


def test_more_detections_than_requested_are_an_error():
    settings = load(small_detector.ROOT / "params.yaml").export
    nms = {"ap_difference": 0.0, "detections": 10, "max_detections": 1}
    with pytest.raises(UserError, match=r"model_nms\.onnx: returns 10 detections .* over evaluate.max_detections = 1"):
        refuse_if_off({"onnx": {}, "onnx_nms": nms, "openvino": {}, "tensorrt": {}}, settings)


def test_the_graph_with_nms_keeps_to_max_detections(project, tmp_path):
    run(project, tmp_path, "export.openvino=[]", "evaluate.max_detections=1", "export.nms_conf=0.01")
    nms = json.loads((tmp_path / "export.json").read_text())["onnx_nms"]
    assert (nms["detections"], nms["max_detections"]) == (1, 1)


def test_differences():
    expected = torch.tensor([[[100.0, 50, 20, 10, 0.5, 0.5]]])
    found = torch.tensor([[[101.0, 50, 20, 10, 0.5, 0.47]]])
    # Boxes: 1 px of at most 100 px = 0.01; probabilities: 0.03 of 1.
    assert differences(expected, found) == pytest.approx((1, 0.03, 0.03))
