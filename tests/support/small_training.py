"""A training that takes seconds: a small detector on a few pictures of digits."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from components import parameter_file as params_
from components.monitoring.training_log import SILENT, TrainingLog
from components.params import Params
from components.stages import prepare, train
from yolo_core.data.coco import load_split
from yolo_core.hyperparameters import Hyperparameters
from yolo_core.models import get_spec
from yolo_core.train import Phase, TrainConfig, TrainResult, fit

MODEL = "yolov4-tiny"
SIZE = 64
SETTINGS = [
    "prepare.digits.train_images=16",
    "prepare.digits.val_images=4",
    "prepare.digits.image_size=96",
    f"train.size={SIZE}",
    "train.epochs=5",
    "train.batch=4",
    "train.nominal_batch=8",
    "train.checkpoint_every=3",
    "train.eval_every=2",
    "train.device=cpu",
    "train.width=0.25",
]
STEPS = 5 * 16 // 4
ROOT = Path(__file__).parents[2]
PROGRAM = """
from components.cli import main as cli
from components.monitoring import progress
from components.training import launch
launch.RESIZE_EVERY_S = 5.0
progress.LINE_EVERY = 0.0  # each step of a training in this process
cli.main()
"""


def parameters(*changes: str) -> Params:
    return params_.load(ROOT / "params.yaml", [*SETTINGS, *changes])


def prepared(folder: Path) -> Path:
    """Put the dataset (data), the anchors (anchors.json) and no hyperparameters (hyp.yaml) there."""
    prepare.run(parameters(), out=folder / "data")
    spec = get_spec(MODEL)
    anchors = [[[side * SIZE / spec.native_size for side in pair] for pair in level] for level in spec.anchors]
    (folder / "anchors.json").write_text(json.dumps({"model": MODEL, "size": SIZE, "anchors": anchors}))
    (folder / "hyp.yaml").write_text("hyp: {}\n")
    return folder


def run(project: Path, name: str, *changes: str, log: TrainingLog = SILENT) -> dict[str, Any]:
    """The stage, with results in project/name and unfinished work in project/name-work."""
    return train.run(
        parameters(*changes),
        model=MODEL,
        data=project / "data",
        anchors=project / "anchors.json",
        hyp=None,
        out=project / name,
        work=project / f"{name}-work",
        log=log,
    )


def command(project: Path, name: str, *changes: str, **options: object) -> list[str]:
    """The same as a command; options override its own."""
    paths = {"data": project / "data", "out": project / name, "work": project / f"{name}-work", **options}
    paths |= {"anchors": project / "anchors.json", "hyp": project / "hyp.yaml"}
    words = [f"--model={MODEL}", *(f"--{k}={v}" for k, v in paths.items())]
    words += [f"--params={ROOT / 'params.yaml'}", *(f"-S{change}" for change in (*SETTINGS, *changes))]
    return [sys.executable, "-c", PROGRAM, "train", *words]


def config(**changes: Any) -> TrainConfig:
    """A quarter-width model for 5 epochs of 4 steps; the last 2 epochs are a second phase."""
    hyp = Hyperparameters(warmup_epochs=1, warmup_iterations=0)
    plain = TrainConfig(
        MODEL,
        (Phase(3, hyp), Phase(5, hyp.replace(mixup=0.5))),
        size=SIZE,
        batch=4,
        nominal_batch=8,
        width=0.25,
        device="cpu",
        checkpoint_every=3,
        eval_every=2,
    )
    return replace(plain, **changes)


def fitted(project: Path, settings: TrainConfig, **options: Any) -> TrainResult:
    """The same data under `fit`, without the stage."""
    return fit(settings, load_split(project / "data", "train"), load_split(project / "data", "val"), **options)
