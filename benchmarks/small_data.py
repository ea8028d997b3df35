"""AP after a few minutes of training from random weights, beside ultralytics' smallest detector on the same images.

    python -m benchmarks.small_data data/prepared --row digits --size 192 --minutes 4 --no-flips

DATA is a dataset that `scaled-yolov4 prepare` wrote. Every contender has the same minutes for its training, evaluation
left out: the number of its epochs follows from its speed, which is measured first. AP is that of the last weights.
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
import typer

from benchmarks import peers
from benchmarks.contender import Contender, Figures, Round
from benchmarks.race import race
from benchmarks.report import Goal, publish
from yolo_core.anchors import FitSettings, choose
from yolo_core.data.coco import load_split
from yolo_core.hyperparameters import RANGES
from yolo_core.models import get_spec
from yolo_core.recipes import RECIPES, RecipeName
from yolo_core.train import EpochReport, Phase, TrainConfig, fit

THREADS = 2
BATCH = 16
MEASURED_EPOCHS = 2  # the first one decodes and compiles
PEER = "yolo11n (ultralytics)"

Data = typer.Argument(help="A dataset that `scaled-yolov4 prepare` wrote.")


def main(data: Path = Data, row: str = "digits", size: int = 192, minutes: float = 4, flips: bool = True) -> None:
    given = {"data": str(data.absolute()), "size": size, "minutes": minutes, "flips": flips}
    peer = "benchmarks.peers.small_data:ultralytics"
    contenders = [
        _ours("yolov7-tiny", "small", given),
        _ours("yolov4-tiny", "small", given),
        _ours("yolov4-csp", "small", given, width=0.25, depth=0.33),
        _ours("yolov7", "small", given, width=0.25),
        _ours("yolov7-tiny", "published", given),
        _ours("yolov4-tiny", "published", given),
        Contender(PEER, peer, given, path=peers.path(), threads=THREADS),
    ]
    results = race(contenders, rounds=1, warmup=0)
    goal = Goal("AP", "", "more", ratio=1.0, against=PEER)
    facts = {"images": len(load_split(data, "train").images), "size": size, "minutes": minutes, "threads": THREADS}
    publish(f"small-{row}", results, [goal], contender=contenders[0].name, **facts)


def _ours(model: str, recipe: RecipeName, given: dict[str, object], **scaling: float) -> Contender:
    scaled = "".join(f", {name} {factor:g}" for name, factor in scaling.items())
    options = {**given, **scaling, "model": model, "recipe": recipe}
    return Contender(f"{model}{scaled}, {recipe}", "benchmarks.small_data:ours", options, threads=THREADS)


def ours(
    model: str,
    recipe: RecipeName,
    data: str,
    size: int,
    minutes: float,
    flips: bool,
    width: float = 1.0,
    depth: float = 1.0,
) -> Round:
    torch.set_num_threads(THREADS)
    training = Training(Path(data), model, recipe, size, {} if flips else {"flip_lr": 0.0}, width, depth)
    speed = training.run(MEASURED_EPOCHS).images_per_second
    assert speed
    epochs = max(1, round(minutes * 60 * speed / training.images))

    def once() -> Figures:
        began = time.monotonic()
        row = training.run(epochs).row
        took = (time.monotonic() - began) / 60
        return {"AP": row["AP"] or 0.0, "AP50": row["AP50"] or 0.0, "epochs": epochs, "minutes": took}

    return once


class Training:
    """A training from random weights on the CPU, evaluated once, at its end.

    changes: hyperparameters that differ from the recipe, and its `nominal_batch` and `ema_tau`.
    """

    def __init__(
        self,
        data: Path,
        model: str,
        recipe: RecipeName,
        size: int,
        changes: Mapping[str, float],
        width: float = 1.0,
        depth: float = 1.0,
        seed: int = 0,
    ) -> None:
        self._train_set, self._val_set = load_split(data, "train"), load_split(data, "val")
        spec, chosen = get_spec(model), RECIPES[recipe]
        own = {name: value for name, value in changes.items() if name in RANGES}
        self._hyp = chosen.hyperparameters(spec.hyp).replace(**own)
        anchors = choose(spec, self._train_set, size, anchor_t=self._hyp.anchor_t, settings=FitSettings(), seed=seed)
        self._config = TrainConfig(
            model=model,
            phases=(),
            size=size,
            batch=BATCH,
            nominal_batch=int(changes.get("nominal_batch", chosen.nominal_batch)),
            ema_tau=changes.get("ema_tau", chosen.ema_tau),
            width=width,
            depth=depth,
            seed=seed,
            anchors=tuple(tuple((float(w), float(h)) for w, h in level) for level in anchors.levels),
            device="cpu",
        )
        self.images = len(self._train_set)

    def run(self, epochs: int) -> EpochReport:
        """The report on the last epoch."""
        reports: list[EpochReport] = []
        config = replace(self._config, phases=(Phase(epochs, self._hyp),), eval_every=epochs)
        fit(config, self._train_set, self._val_set, on_report=reports.append)
        return reports[-1]


if __name__ == "__main__":
    typer.run(main)
