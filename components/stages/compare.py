"""The stage `compare`: all models of a pipeline run side by side by latency and AP, with the gate's decisions."""

from pathlib import Path
from typing import Any

from components.files import METRICS, SPEED, read_json
from components.params import Params
from components.reports import plots
from yolo_core import progress as progress_
from yolo_core.atomic import write_json
from yolo_core.drawing import class_colour
from yolo_core.errors import UserError

Row = dict[str, Any]


def run(
    params: Params,
    *,
    evaluate: Path,
    benchmark: Path,
    promote: Path,
    out: Path,
    progress: progress_.Progress = progress_.silent,
) -> dict[str, Any]:
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
    table = [{**row, "on_front": row["model"] in best} for row in rows]
    write_json(out / "comparison.json", {"devices": devices, "models": {row["model"]: row for row in table}})
    _plot(out / "comparison.png", table, devices)
    return {"models": len(rows), "best for their time": ", ".join(best)}


def front(rows: list[Row]) -> list[str]:
    """The Pareto front, by latency: no other model is as fast and more precise, or as precise and faster."""
    measured = [row for row in rows if row["AP"] is not None and row["latency_ms"] is not None]
    ordered = sorted(measured, key=lambda row: (row["latency_ms"], -row["AP"]))
    best: list[Row] = []
    for row in ordered:
        if not best or row["AP"] > best[-1]["AP"]:
            best.append(row)
    return [row["model"] for row in best]


def _by_model(models: list[str], stage: str, folder: Path, pattern: str) -> dict[str, Any]:
    """The JSON files below a folder, by the model they name; UserError if one is missing."""
    paths = [path for path in sorted(folder.glob(pattern)) if path.is_file() and not path.name.startswith(".")]
    documents = [read_json(path) for path in paths]
    found = {document["model"]: document for document in documents}
    if missing := [model for model in models if model not in found]:
        raise UserError(f"{folder}: nothing of {', '.join(missing)}; run `scaled-yolov4 {stage}` for each model first")
    return found


def _row(figures: dict[str, Any], speed: dict[str, Any], decision: dict[str, Any]) -> Row:
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


def _device(speed: dict[str, Any]) -> str:
    return str(speed["device"]["name"])


def _plot(path: Path, rows: list[Row], devices: list[str]) -> None:
    """AP over latency, one point per model; the line joins the Pareto front."""
    figure, axes = plots.new_figure(7, 5)
    points = [row for row in rows if row["AP"] is not None and row["latency_ms"] is not None]
    line = sorted((row["latency_ms"], row["AP"]) for row in points if row["on_front"])
    axes.plot([x for x, _ in line], [y for _, y in line], color="0.6", linewidth=1, zorder=1)
    for number, row in enumerate(points):
        point = row["latency_ms"], row["AP"]
        axes.scatter(*point, color=[channel / 255 for channel in class_colour(number)], zorder=2)
        text = f"{row['model']}, {row['size']} px: {row['decision']}"
        axes.annotate(text, point, xytext=(6, 6), textcoords="offset points", fontsize=8)
    axes.margins(0.25)
    axes.set(xlabel="ms an image at batch 1", ylabel="AP", title=f"Measured on {', '.join(devices)}")
    plots.save_figure(figure, path)
