"""Models with more levels and auxiliary heads through the stages from training to timing, small and short."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from parameter_reads import run

from components import parameter_file as params_
from components.stages import anchors, benchmark, evaluate, export, prepare, train
from yolo_core.models.weights import load_detector

SETTINGS = [
    "prepare.digits.train_images=4",
    "prepare.digits.val_images=2",
    "prepare.digits.image_size=128",
    "anchors.generations=10",
    "train.size=128",
    "train.width=0.125",
    "train.depth=0.1",
    "train.epochs=1",
    "train.batch=2",
    "train.device=cpu",
    "evaluate.tta.scales=[1]",
    "evaluate.tta.flips=[none]",
    "export.check_images=2",
    "export.openvino=[fp32]",
    "benchmark.batches=[1]",
    "benchmark.warmup=1",
    "benchmark.runs=2",
]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param("yolov7-w6", {}, marks=pytest.mark.slow),
        pytest.param("yolov4-p6", {"drop_levels": 1}, marks=pytest.mark.slow),
    ],
)
def test_from_training_to_timing(
    name: str,
    options: dict,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mlflow_database: Callable[[Path], str],
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_database(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    params = params_.load(Path(__file__).parents[2] / "params.yaml", [*SETTINGS, f"models=[{name}]"])
    data, weights, exported = tmp_path / "data", tmp_path / "train/model.safetensors", tmp_path / "export"
    run(prepare, params, out=data)
    run(anchors, params, data=data, out=tmp_path / "anchors")
    paths = {"anchors": tmp_path / f"anchors/{name}.json", "out": tmp_path / "train", "work": tmp_path / "runs"}
    run(train, params, model=name, data=data, hyp=None, **paths)
    model = load_detector(weights).model
    assert (model.auxiliary is not None) == (name == "yolov7-w6")  # training can continue from the file

    common = {"model": name, "data": data, "weights": weights, **options}
    run(evaluate, params, **common, out=tmp_path / "evaluate")
    run(export, params, **common, out=exported)
    run(benchmark, params, **common, export=exported, out=tmp_path / "benchmark")
    levels = len(model.strides) - options.get("drop_levels", 0)
    assert len(json.loads((tmp_path / "evaluate/metrics.json").read_text())["strides"]) == levels
    assert json.loads((exported / "export.json").read_text())["onnx"]["relative_error"] < 1e-3
    assert json.loads((tmp_path / "benchmark/benchmark.json").read_text())["latency_ms_b1"] > 0
