"""The export stage on a small detector: files, report, and the refusal of numbers that are off."""

import json

import pytest
import small_detector
import torch

from components import export
from components.params import load
from yolo_core.deploy.onnx import OnnxPredictor
from yolo_core.errors import UserError


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return small_detector.write(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def out(project, tmp_path_factory):
    out = tmp_path_factory.mktemp("export")
    run(project, out)
    return out


def run(project, out, *overrides):
    params = load(small_detector.ROOT / "params.yaml", ["export.check_images=4", *overrides])
    return export.run(params, model=small_detector.MODEL, data=project.data, weights=project.weights, out=out)


def test_files_and_report(out):
    report = json.loads((out / "export.json").read_text())
    assert {path.name for path in out.iterdir()} == {"model.onnx", "model_nms.onnx", "export.json"}
    assert report["images"] == 4
    assert report["bytes"]["model.onnx"] == (out / "model.onnx").stat().st_size
    assert 0 < report["onnx"]["relative_error"] < 1e-4
    for row in (report["onnx"], report["onnx_nms"]):
        assert row["ap_pytorch"] > 0.5, "the truth is what the detector finds"
        assert row["ap_difference"] <= 0.001
    assert report["versions"].keys() == {"python", "torch", "onnx", "onnxruntime"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="shows what happens without a GPU")
def test_engines_that_cannot_be_built_leave_their_reason(out):
    report = json.loads((out / "export.json").read_text())
    assert report["tensorrt"] == {
        precision: {"status": "skipped", "reason": "no CUDA device"} for precision in ("fp32", "fp16")
    }


def test_the_file_is_named_and_sized_like_its_model(out):
    assert OnnxPredictor(out / "model.onnx").metadata["size"] == small_detector.SIZE


def test_numbers_over_the_tolerance_are_a_fault(project, tmp_path):
    message = r"model.onnx: relative error to PyTorch is .*, over export.tolerance = 1e-12"
    with pytest.raises(UserError, match=message):
        run(project, tmp_path, "export.tolerance=1.0e-12")
    assert json.loads((tmp_path / "export.json").read_text())["tolerance"] == 1e-12


def test_a_lower_ap_is_a_fault():
    settings = load(small_detector.ROOT / "params.yaml").export
    fine = {"relative_error": 1e-6, "ap_difference": 0.0}
    report = {"onnx": fine, "onnx_nms": {"ap_difference": 0.02}, "tensorrt": {"fp16": {"ap_difference": 0.5}}}
    with pytest.raises(UserError, match=r"model_nms.onnx: ap difference .* 0.02, over export.ap_tolerance = 0.001"):
        export.refuse_if_off(report, settings)
    export.refuse_if_off({**report, "onnx_nms": {"ap_difference": None}}, settings)
    with pytest.raises(UserError, match="nan"):
        export.refuse_if_off({**report, "onnx": {"relative_error": float("nan")}}, settings)


def test_differences():
    expected = torch.tensor([[[100.0, 50, 20, 10, 0.5, 0.5]]])
    found = torch.tensor([[[101.0, 50, 20, 10, 0.5, 0.47]]])
    # Boxes: 1 px of at most 100 px = 0.01; probabilities: 0.03 of 1.
    assert export.differences(expected, found) == pytest.approx((1, 0.03, 0.03))
