"""The stage `compare`: all models of a pipeline run side by side by latency and AP, with the gate's decisions."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

from components.files import METRICS, SPEED, read_json
from components.params import Params
from components.reports import plots
from yolo_core import progress as progress_
from yolo_core.atomic import write_json
from yolo_core.drawing import class_colour
from yolo_core.errors import UserError

if TYPE_CHECKING:
    from components.deployment.timing import BenchmarkReport
    from components.evaluation.measurement import Metrics


class Row(TypedDict):
    """A model beside the others."""

    model: str
    """Name of the detector."""

    size: int
    """Longer side of the input, px."""

    AP: float | None
    """On the validation images, 0..1; None where they have no objects."""

    AP50: float | None
    """At IoU .50."""

    AP_TTA: float | None
    """With test-time augmentation."""

    latency_ms: float | None
    """p50 at batch 1; None when it was not measured."""

    backend: str | None
    """The backend and precision of that latency."""

    decision: str
    """The gate's decision."""

    version: int
    """The version that was judged."""

    champion: int | None
    """The champion's version after it."""


class ComparedRow(Row):
    """A row of comparison.json."""

    on_front: bool
    """Whether it is on the Pareto front."""


R = TypeVar("R", bound=Row)


def run(
    params: Params,
    *,
    evaluate: Path,
    benchmark: Path,
    promote: Path,
    out: Path,
    progress: progress_.Progress = progress_.silent,
) -> dict[str, object]:
    """Write comparison.json and comparison.png to `out`: a row and a point for each model in the parameters.

    evaluate, benchmark, promote: folders that contain each model's results of that stage; the files name their model.
    Raises UserError if one is missing.
    """
    figures, speeds, decisions = (
        _by_model(params.models, stage, folder, pattern)
        for stage, folder, pattern in (
            ("evaluate", evaluate, f"*/{METRICS}"),
            ("benchmark", benchmark, f"*/{SPEED}"),
            ("promote", promote, "*"),
        )
    )
    rows = [_row(figures[model], speeds[model], decisions[model]) for model in params.models]
    best = front(rows)
    devices = sorted({_device(speeds[model]) for model in params.models})
    table: list[ComparedRow] = [{**row, "on_front": row["model"] in best} for row in rows]
    write_json(out / "comparison.json", {"devices": devices, "models": {row["model"]: row for row in table}})
    _plot(out / "comparison.png", table, devices)
    return {"models": len(rows), "best for their time": ", ".join(best)}


def front(rows: Sequence[Row]) -> list[str]:
    """The Pareto front, by latency: no other model is as fast and more precise, or as precise and faster."""
    best: list[tuple[float, float, Row]] = []
    for point in sorted(_points(rows), key=lambda point: (point[0], -point[1])):
        if not best or point[1] > best[-1][1]:
            best.append(point)
    return [row["model"] for *_, row in best]


def _points(rows: Sequence[R]) -> list[tuple[float, float, R]]:
    """Latency in ms, AP and row of every model of which both are known."""
    return [
        (row["latency_ms"], row["AP"], row) for row in rows if row["latency_ms"] is not None and row["AP"] is not None
    ]


def _by_model(models: list[str], stage: str, folder: Path, pattern: str) -> dict[str, Any]:
    """The JSON files below a folder, by the model they name; UserError if one is missing."""
    paths = [path for path in sorted(folder.glob(pattern)) if path.is_file() and not path.name.startswith(".")]
    documents = [read_json(path) for path in paths]
    found = {document["model"]: document for document in documents}
    if missing := [model for model in models if model not in found]:
        raise UserError(f"{folder}: nothing of {', '.join(missing)}; run `scaled-yolov4 {stage}` for each model first")
    return found


def _row(figures: "Metrics", speed: "BenchmarkReport", decision: dict[str, Any]) -> Row:
    return {
        "model": figures["model"],
        "size": figures["size"],
        "AP": figures["plain"]["AP"],
        "AP50": figures["plain"]["AP50"],
        "AP_TTA": figures["tta"]["AP"],
        "latency_ms": speed["latency_ms_b1"],
        "backend": speed.get("latency_backend_b1"),
        "decision": decision["decision"],
        "version": decision["version"],
        "champion": decision["champion_after"],
    }


def _device(speed: "BenchmarkReport") -> str:
    return str(speed["device"]["name"])


def _plot(path: Path, rows: list[ComparedRow], devices: list[str]) -> None:
    """AP over latency, one point per model; the line joins the Pareto front."""
    figure, axes = plots.new_figure(7, 5)
    points = _points(rows)
    line = sorted((latency, ap) for latency, ap, row in points if row["on_front"])
    axes.plot([x for x, _ in line], [y for _, y in line], color="0.6", linewidth=1, zorder=1)
    for number, (latency, ap, row) in enumerate(points):
        axes.scatter(latency, ap, color=[channel / 255 for channel in class_colour(number)], zorder=2)
        text = f"{row['model']}, {row['size']} px: {row['decision']}"
        axes.annotate(text, (latency, ap), xytext=(6, 6), textcoords="offset points", fontsize=8)
    axes.margins(0.25)
    axes.set(xlabel="ms an image at batch 1", ylabel="AP", title=f"Measured on {', '.join(devices)}")
    plots.save_figure(figure, path)
