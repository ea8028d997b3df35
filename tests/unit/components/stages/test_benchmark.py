"""The benchmark stage on a small detector: layout of the record and plausibility of its numbers."""

import json
import shutil

import pytest
import small_detector
import torch

from components.deployment.accuracy import fastest
from components.deployment.backends import Backend
from components.deployment.timing import preprocess
from components.stages import benchmark, export
from yolo_core.deploy import openvino
from yolo_core.errors import UserError
from yolo_core.models.cost import Footprint

PARTS = ("preprocess_ms", "inference_ms", "postprocess_ms", "total_ms")


def test_the_record(project, exported, tmp_path):
    inputs = {"model": small_detector.MODEL, "data": project.data, "weights": project.weights}
    threads = torch.get_num_threads()
    summary = benchmark.run(project.params, **inputs, export=exported, out=tmp_path)
    record = json.loads((tmp_path / "benchmark.json").read_text())

    assert (record["model"], record["size"], record["runs"]) == ("yolov4-tiny", 96, 3)
    assert record["device"]["threads"] == 1
    assert Footprint(**record["graph"]).size == 96
    assert record["versions"].keys() >= {"python", "torch", "onnxruntime"}
    cases = {(row["backend"], row["precision"], row["batch"]) for row in record["rows"]}
    assert cases >= {("PyTorch", "fp32", 1), ("PyTorch", "fp32", 4)}
    assert {batch for backend, _, batch in cases if backend.startswith("ONNX Runtime")} == {1, 4}
    offered = [p for p in ("fp32", "bf16") if not openvino.why_not(p)] if not torch.cuda.is_available() else []
    assert {(p, batch) for backend, p, batch in cases if backend == "OpenVINO CPU" and p != "int8"} == {
        (precision, batch) for precision in offered for batch in (1, 4)
    }
    for row in record["rows"]:
        for part in PARTS:
            assert 0 < row[part]["p50"] <= row[part]["p90"] <= row[part]["p99"]
        assert row["total_ms"]["p50"] >= row["inference_ms"]["p50"]
        assert row["images_per_second"] > 0
    by_backend = {(row["backend"], row["precision"]): row["ap"] for row in record["rows"]}
    judged = by_backend["PyTorch", "fp32"]
    assert judged > 0.5, "the ground truth is what the detector finds on these canvases"
    assert all(row["ap"] == by_backend[row["backend"], row["precision"]] for row in record["rows"])
    as_good = (row for row in record["rows"] if row["batch"] == 1 and row["ap"] >= judged - 0.001)
    best = min(as_good, key=lambda row: row["total_ms"]["p50"])
    assert record["latency_ms_b1"] == best["total_ms"]["p50"] == summary["ms at batch 1"]
    assert record["latency_backend_b1"] == f"{best['backend']} {best['precision']}"
    assert torch.get_num_threads() == threads


@pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU OpenVINO is not timed")
def test_what_the_export_rejected_is_not_timed(project, exported, tmp_path):
    pytest.importorskip("openvino")
    inputs = {"model": small_detector.MODEL, "data": project.data, "weights": project.weights}
    shutil.copytree(exported, tmp_path, dirs_exist_ok=True)
    report = json.loads((tmp_path / "export.json").read_text())
    report["openvino"]["fp32"]["status"] = "rejected"
    (tmp_path / "export.json").write_text(json.dumps(report))
    record = tmp_path / "benchmark.json"
    benchmark.run(project.params, **inputs, export=tmp_path, out=tmp_path)
    cases = {(row["backend"], row["precision"]) for row in json.loads(record.read_text())["rows"]}
    assert ("OpenVINO CPU", "fp32") not in cases
    assert ("PyTorch", "fp32") in cases


def timed(backend: str, precision: str, ap: float | None, p50: float, batch: int = 1) -> dict:
    return {"backend": backend, "precision": precision, "batch": batch, "ap": ap, "total_ms": {"p50": p50}}


def test_the_latency_is_of_a_backend_that_is_as_good_as_what_was_evaluated():
    """0.4992 is within 0.001 of PyTorch's 0.5 and 0.49 is not, however fast it is."""
    reference = Backend("PyTorch", "fp32", lambda images: images)
    rows = [
        timed("PyTorch", "fp32", 0.5, 10),
        timed("PyTorch", "fp16", 0.4992, 6),
        timed("OpenVINO CPU", "int8", 0.49, 2),
        timed("CUDA graph", "fp16", None, 1),
        timed("PyTorch", "fp16", 0.4992, 0.1, batch=4),
    ]
    assert fastest(rows, reference, 0.001) == rows[1]
    assert fastest(rows, reference, 0.02) == rows[2]
    assert fastest([timed("PyTorch", "fp32", None, 10)], reference, 0.001) is None


def test_without_an_export_the_stage_is_named(project, tmp_path):
    with pytest.raises(UserError, match=r"model.onnx: not found; run `scaled-yolov4 export`"):
        benchmark.run(
            project.params,
            model=small_detector.MODEL,
            data=project.data,
            weights=project.weights,
            export=tmp_path,
            out=tmp_path,
        )


@pytest.mark.parametrize("file", ["model.onnx", pytest.param("model_openvino.xml", marks=pytest.mark.slow)])
def test_a_damaged_export_is_one_line_with_the_stage(project, tmp_path, file):
    if file.endswith(".xml") and (torch.cuda.is_available() or openvino.why_not("fp32")):
        pytest.skip("OpenVINO is not timed here")
    inputs = {"model": small_detector.MODEL, "data": project.data, "weights": project.weights}
    export.run(project.params, **inputs, out=tmp_path)
    (tmp_path / file).write_text("<net")
    with pytest.raises(UserError, match=rf"{file}: .* cannot open it .*; run `scaled-yolov4 export` again") as error:
        benchmark.run(project.params, **inputs, export=tmp_path, out=tmp_path)
    assert "\n" not in str(error.value)


def test_images_are_taken_in_turn(project):
    from yolo_core.data.coco import load_split

    dataset = load_split(project.data, "val")
    batch = preprocess(dataset, range(4, 8), 64, torch.device("cpu"))
    again = preprocess(dataset, range(0, 2), 64, torch.device("cpu"))
    assert batch.shape == (4, 3, 64, 64)
    assert torch.equal(batch[2:], again), "images 6 and 7 of 6 are the first two"
