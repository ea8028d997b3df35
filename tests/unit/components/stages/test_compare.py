"""The comparison of the models of one pass: what is on the Pareto front, what is written, what is missing."""

import json
from pathlib import Path
from typing import Any

import cv2
import pytest

from components import parameter_file
from components.stages import compare
from yolo_core.errors import UserError

PARAMS = Path(__file__).parents[4] / "params.yaml"
# AP, ms
MODELS = {"yolov7": (0.5, 30.0), "yolov4-tiny": (0.3, 10.0), "yolov4-csp": (0.2, 20.0), "yolov7-tiny": (0.25, 10.0)}


def row(model: str, ap: float | None, latency_ms: float | None) -> dict[str, Any]:
    return {"model": model, "AP": ap, "latency_ms": latency_ms}


def test_the_front_is_what_no_other_beats() -> None:
    rows = [row(model, *figures) for model, figures in MODELS.items()]
    # By latency; yolov7-tiny is as fast as yolov4-tiny, and less precise.
    assert compare.front(rows) == ["yolov4-tiny", "yolov7"]


def test_what_was_not_measured_is_not_on_the_front() -> None:
    assert compare.front([row("a", None, 1.0), row("b", 0.1, None)]) == []


def made(folder: Path, models: dict[str, tuple[float | None, float]]) -> dict[str, Any]:
    """Results of the earlier stages, in folders with arbitrary names."""
    for number, (model, (ap, latency_ms)) in enumerate(models.items()):
        figures = {"AP": ap, "AP50": ap}
        metrics = {"model": model, "size": 64, "plain": figures, "tta": figures}
        speed = {"model": model, "device": {"name": "a CPU"}, "latency_ms_b1": latency_ms, "latency_backend_b1": "x"}
        decision = {"model": model, "decision": "hold", "version": 2, "champion_after": 1}
        for name, content in (
            (f"evaluate/{number}/metrics.json", metrics),
            (f"benchmark/{number}/benchmark.json", speed),
            (f"promote/{number}", decision),
        ):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(json.dumps(content))
    return {name: folder / name for name in ("evaluate", "benchmark", "promote")} | {"out": folder / "out"}


def test_a_row_and_a_point_for_each_model(tmp_path: Path) -> None:
    paths = made(tmp_path, {**MODELS, "another-run's": (0.9, 1.0), "yolov4-p5": (None, 5.0)})
    chosen = parameter_file.load(PARAMS, [f"models=[{', '.join(MODELS)}, yolov4-p5]"])
    assert compare.run(chosen, **paths) == {"models": 5, "best for their time": "yolov4-tiny, yolov7"}
    written = json.loads((tmp_path / "out/comparison.json").read_text())
    assert written["devices"] == ["a CPU"]
    assert {model: entry["on_front"] for model, entry in written["models"].items()} == {
        "yolov7": True,
        "yolov4-tiny": True,
        "yolov4-csp": False,
        "yolov7-tiny": False,
        "yolov4-p5": False,
    }
    assert written["models"]["yolov7"]["decision"] == "hold"
    picture = cv2.imread(str(tmp_path / "out/comparison.png"))
    assert picture is not None
    assert picture.std() > 1  # something is drawn


def test_a_model_without_results_is_named_with_its_stage(tmp_path: Path) -> None:
    paths = made(tmp_path, {"yolov7": MODELS["yolov7"]})
    (tmp_path / "promote/0").unlink()
    with pytest.raises(UserError, match="promote: nothing of yolov7; run `scaled-yolov4 promote`"):
        compare.run(parameter_file.load(PARAMS, ["models=[yolov7]"]), **paths)
