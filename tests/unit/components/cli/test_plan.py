"""The command `plan`: what it prints, what it predicts from, and user errors."""

import json
import re
from dataclasses import asdict

import pytest
from typer.testing import CliRunner

from components.cli.main import app
from yolo_core.errors import UserError
from yolo_core.models import planning_device
from yolo_core.models.planner import count
from yolo_core.models.published import GPU_USE, PEAK_TFLOPS


def run(*arguments: str):
    return CliRunner().invoke(app, ["plan", *arguments])


def record(path, model: str = "yolov4-tiny", ms: float = 10.0, device: str = "Some GPU (8 GiB)", **changes):
    """A benchmark record of a model at its native size, in two backends."""
    graph = count(model)
    rows = [
        {"backend": "PyTorch", "precision": "fp32", "batch": 1, "inference_ms": {"p50": 3 * ms}},
        {"backend": "ONNX Runtime", "precision": "fp32", "batch": 1, "inference_ms": {"p50": ms}},
        {"backend": "ONNX Runtime", "precision": "fp32", "batch": 4, "inference_ms": {"p50": ms / 10}},
    ]
    content = {"model": model, "size": graph.size, "graph": asdict(graph), "device": {"name": device}, "rows": rows}
    content |= changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    return path


def test_a_plan_shows_candidates_reasons_and_the_choice():
    result = run("--latency-ms", "3", "--device", "2080 Ti")
    assert result.exit_code == 0, result.output
    for words in (
        "Plan for 3 ms on RTX 2080 Ti",
        "assumption: the published speeds at batch 1",
        "yolov4-tiny 416 px 773/s",
        "the largest input that fits",
        "limit 3",
        "Choice: yolov4-tiny",
        "Next: scaled-yolov4 anchors -S 'models=[yolov4-tiny-3l]' -S train.per_model.yolov4-tiny-3l.size=",
    ):
        assert words in result.output


def test_a_benchmark_record_calibrates_the_prediction(tmp_path):
    path = record(tmp_path / "benchmark.json")
    result = run("--latency-ms", "10", "--benchmark", str(path))
    assert result.exit_code == 0, result.output
    assert "on Some GPU (8 GiB)" in result.output
    assert "measured in ONNX Runtime fp32: yolov4-tiny 416 px 10 ms" in result.output
    assert "assumption" not in result.output
    device = planning_device.from_records([path], "auto")
    tiny = count("yolov4-tiny")
    assert device.roofline.ms(tiny) == pytest.approx(10)
    assert device.roofline.number_bytes == 4
    # Twice the side, four times the work: 10 ms of arithmetic become 40
    assert device.roofline.ms(tiny.at(832)) == pytest.approx(40)


def test_records_of_several_models_make_one_roofline(tmp_path):
    paths = [record(tmp_path / "a.json"), record(tmp_path / "b.json", "yolov4-tiny-3l", 18.0)]
    device = planning_device.from_records(paths, "some gpu")
    assert device.roofline.ms(count("yolov4-tiny-3l")) == pytest.approx(18)
    assert len(device.roofline.corrections) == 2


def test_a_record_without_a_counted_graph_is_of_the_published_model(tmp_path):
    with_graph, without = record(tmp_path / "a.json"), record(tmp_path / "b.json", graph=None)
    assert (
        planning_device.from_records([with_graph], "auto").roofline
        == planning_device.from_records([without], "auto").roofline
    )


def test_an_unmeasured_device_is_planned_by_its_peak():
    device = planning_device.from_papers("NVIDIA A100-SXM4-80GB", "yolov4")
    assert device.name == "A100"
    share = GPU_USE["yolov4-csp"].fps / GPU_USE["yolov4-csp"].ideal_fps
    assert device.roofline.gflops_per_s == pytest.approx(PEAK_TFLOPS["A100"] * 1000 * share)
    assert "7.5 % of the peak of 312 TFLOP/s" in device.grounds


def test_the_assumed_device_is_named_where_this_machine_is_unknown(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    device = planning_device.from_papers("auto", "yolov4")
    assert device.name == "Tesla V100"
    assert "assumed, because this machine is unknown" in device.grounds


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Tesla V100-SXM2-16GB (16 GiB)", "Tesla V100"),
        ("NVIDIA GeForce RTX 2080 Ti", "RTX 2080 Ti"),
        ("jetson nano", "Jetson Nano"),
        ("NVIDIA L40S", None),
        ("RTX 2080", None),
    ],
)
def test_devices_are_recognised_by_whole_words(text, name):
    known = ["Jetson Nano", "L4", "RTX 2080 Ti", "Tesla V100"]
    assert planning_device._match(text, known) == name


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--latency-ms", "0"], ["latency (ms)", "above 0"]),
        (["--latency-ms", "5", "--params", "-1"], ["parameters (millions)", "-1"]),
        (["--latency-ms", "5", "--device", "abacus"], ["abacus", "Tesla V100", "--benchmark"]),
        (["--latency-ms", "5", "--family", "yolov5", "--device", "2080 Ti"], ["yolov5", "yolov4, yolov7"]),
        (["--latency-ms", "5", "--benchmark", "none.json"], ["none.json", "benchmark"]),
        (["--latency-ms", "5", "--benchmark", "/"], ["/: not a record", "IsADirectory"]),
        (["--latency-ms", "0.001", "--device", "2080 Ti"], ["nothing fits", "latency", "limit 0.001", "over"]),
    ],
)
def test_an_error_of_the_user_is_one_line_and_exit_code_2(arguments, words):
    result = run(*arguments)
    assert result.exit_code == 2
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    assert all(word in lines[0] for word in words), lines[0]


@pytest.mark.parametrize(
    "text", ["[]", "{}", "not json", '{"rows": [{"batch": 1}]}', '{"model": "yolov4-tiny", "rows": []}']
)
def test_a_file_that_is_not_a_record_is_named(tmp_path, text):
    path = tmp_path / "wrong.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"wrong.json: not a record"):
        planning_device.from_records([path], "auto")


def test_records_of_two_devices_need_a_choice(tmp_path):
    paths = [record(tmp_path / "a.json"), record(tmp_path / "b.json", device="Other GPU")]
    with pytest.raises(UserError, match=r"device = auto: .* Other GPU and Some GPU"):
        planning_device.from_records(paths, "auto")
    result = run("--latency-ms", "5", *(part for path in paths for part in ("--benchmark", str(path))))
    assert re.search(r"Other GPU and Some GPU", result.stderr)
    assert "--device" in result.stderr
    assert planning_device.from_records(paths, "other").name == "Other GPU"
    with pytest.raises(UserError, match="device = third: no record of it"):
        planning_device.from_records(paths, "third")


def test_records_without_a_common_backend_are_refused(tmp_path):
    rows = [{"backend": "TensorRT", "precision": "fp16", "batch": 1, "inference_ms": {"p50": 1.0}}]
    paths = [record(tmp_path / "a.json"), record(tmp_path / "b.json", rows=rows)]
    with pytest.raises(UserError, match="no backend in common"):
        planning_device.from_records(paths, "auto")
