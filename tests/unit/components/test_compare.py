"""The comparison of the models of one pass: what is on the Pareto front, what is written, what is missing."""

import json
from pathlib import Path
from typing import Any

import cv2
import pytest
from parameter_reads import run

from components import params
from components.stages import compare
from yolo_core.errors import UserError

PARAMS = Path(__file__).parents[3] / "params.yaml"
MODELS = {"slow": (0.5, 30.0), "fast": (0.3, 10.0), "beaten": (0.2, 20.0), "as-fast": (0.25, 10.0)}  # AP, ms


def row(model: str, ap: float | None, latency_ms: float | None) -> dict[str, Any]:
    return {"model": model, "AP": ap, "latency_ms": latency_ms}


def test_the_front_is_what_no_other_beats() -> None:
    rows = [row(model, *figures) for model, figures in MODELS.items()]
    assert compare.front(rows) == ["fast", "slow"]  # by latency; as-fast is as fast as fast, and less precise


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
    paths = made(tmp_path, {**MODELS, "another-run's": (0.9, 1.0), "no-truth": (None, 5.0)})
    chosen = params.load(PARAMS, [f"models=[{', '.join(MODELS)}, no-truth]"])
    assert run(compare, chosen, **paths) == {"models": 5, "best for their time": "fast, slow"}
    written = json.loads((tmp_path / "out/comparison.json").read_text())
    assert written["devices"] == ["a CPU"]
    assert {model: entry["on_front"] for model, entry in written["models"].items()} == {
        "slow": True,
        "fast": True,
        "beaten": False,
        "as-fast": False,
        "no-truth": False,
    }
    assert written["models"]["slow"]["decision"] == "hold"
    picture = cv2.imread(str(tmp_path / "out/comparison.png"))
    assert picture is not None
    assert picture.std() > 1  # something is drawn


def test_a_model_without_results_is_named_with_its_stage(tmp_path: Path) -> None:
    paths = made(tmp_path, {"slow": MODELS["slow"]})
    (tmp_path / "promote/0").unlink()
    with pytest.raises(UserError, match="promote: nothing of slow; run `scaled-yolov4 promote`"):
        compare.run(params.load(PARAMS, ["models=[slow]"]), **paths)
