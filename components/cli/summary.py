"""The closing table: the results of the last run, and where everything is."""

import os
from pathlib import Path

from rich.box import SIMPLE
from rich.table import Table

from components.files import MANIFEST, METRICS, SPEED, read_json
from components.params import Params
from components.reports.console import console
from components.stage_table import default_paths
from components.tracking.connection import shown_uri
from components.workspace import DATA, OUTPUTS

LOCAL = "sqlite:///mlflow.db"  # MLflow without MLFLOW_TRACKING_URI

# row -> (stage whose file is read, file below that stage's folder, keys down to the value)
FIGURES = {
    "AP": ("evaluate", METRICS, ("plain", "AP")),
    "AP50": ("evaluate", METRICS, ("plain", "AP50")),
    "AP, TTA": ("evaluate", METRICS, ("tta", "AP")),
    "AP50, TTA": ("evaluate", METRICS, ("tta", "AP50")),
    "ms an image, batch 1": ("benchmark", SPEED, ("latency_ms_b1",)),
    "registered version": ("register", "", ("version",)),
    "decision": ("promote", "", ("decision",)),
    "versions compared so far": ("promote", "", ("ap", "looks")),
    "champion version": ("promote", "", ("champion_after",)),
}


def show(params: Params) -> None:
    """Print figures per model and where the results are; what a stage has not produced yet shows as '-'."""
    figures = Table(title="Results on the validation images", box=SIMPLE)
    figures.add_column()
    for model in params.models:
        figures.add_column(model, justify="right")
    for row, source in FIGURES.items():
        figures.add_row(row, *(_text(_read(model, *source)) for model in params.models))

    locations = Table(title="Where everything is", show_header=False, box=SIMPLE)
    locations.add_column(no_wrap=True)
    locations.add_column(overflow="fold")
    for what, where in _locations(params, params.models[0]):
        locations.add_row(what, where)
    out = console()
    out.print(figures)
    out.print(locations)


def _read(model: str, stage: str, file: str, keys: tuple[str, ...]) -> object:
    path = default_paths(stage, model)["out"] / file
    value = read_json(path) if path.exists() else None
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _text(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _locations(params: Params, model: str) -> list[tuple[str, str]]:
    def out(stage: str) -> Path:
        return default_paths(stage, model)["out"]

    return [
        ("dataset and what was refused", f"{DATA}/{MANIFEST}"),
        ("anchors, hyperparameters", f"{OUTPUTS}/anchors/, {OUTPUTS}/evolve/"),
        ("weights, learning curves", f"{out('train')}/"),
        ("metrics, plots, sample pictures", f"{out('evaluate')}/"),
        ("ONNX (and TensorRT)", f"{out('export')}/"),
        ("speed", f"{out('benchmark')}/{SPEED}"),
        ("registry decision", f"{out('promote')}"),
        ("all models side by side", f"{out('compare')}/comparison.png"),
        (
            "MLflow",
            shown_uri()
            if os.environ.get("MLFLOW_TRACKING_URI")
            else f"{LOCAL}; look at it with `mlflow ui --backend-store-uri {LOCAL}`",
        ),
        ("champion", f"models:/{params.registered_name(model)}@champion"),
    ]
