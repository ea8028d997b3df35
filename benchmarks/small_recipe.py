"""What each part of the recipe `small` gives: AP after a few epochs with that part as in the published recipe.

    python -m benchmarks.small_recipe data/prepared

DATA is the digits as `scaled-yolov4 prepare` writes them. All trainings have the same number of epochs, from random
weights, and are repeatable bit for bit; those with other seeds show how much of a difference is chance.
"""

from pathlib import Path

import torch
import typer

from benchmarks.contender import Contender, Figures, Round
from benchmarks.race import race
from benchmarks.report import publish
from benchmarks.small_data import BATCH, Data, Training
from yolo_core.models import get_spec
from yolo_core.recipes import RECIPES

# Hyperparameters that only mean something together are changed together.
PARTS = {
    "SimOTA": ("simota_from",),
    "objectness gain by size": ("obj_size_power",),
    "class gain by classes": ("cls_count_power",),
    "learning rate": ("lr0", "lrf"),
    "images per update": ("nominal_batch",),
    "warm-up": ("warmup_epochs", "warmup_iterations"),
    "EMA": ("ema_tau",),
    "shift, scale, mosaic, mixup": ("translate", "scale", "mosaic", "mixup"),
}
SEEDS = 3


def main(data: Path = Data, model: str = "yolov7-tiny", size: int = 192, epochs: int = 10) -> None:
    given = {"data": str(data.absolute()), "model": model, "size": size, "epochs": epochs}
    published = get_spec(model).hyp
    others = {"nominal_batch": RECIPES["published"].nominal_batch, "ema_tau": RECIPES["published"].ema_tau}
    parts = {
        f"published: {part}": {name: others.get(name) or getattr(published, name) for name in names}
        for part, names in PARTS.items()
    }
    contenders = [
        _contender("small", {}, 0, given),
        *(_contender(f"small, seed {seed}", {}, seed, given) for seed in range(1, SEEDS)),
        *(_contender(name, changes, 0, given) for name, changes in parts.items()),
    ]
    results = race(contenders, rounds=1, warmup=0)
    facts = {"model": model, "size": size, "epochs": epochs, "batch": BATCH}
    publish("small-recipe", results, [], contender="small", **facts)


def _contender(name: str, changes: dict[str, float], seed: int, given: dict[str, object]) -> Contender:
    options = {**given, "changes": changes, "seed": seed}
    return Contender(name, "benchmarks.small_recipe:train", options)


def train(data: str, model: str, size: int, epochs: int, changes: dict[str, float], seed: int) -> Round:
    torch.set_num_threads(1)
    training = Training(Path(data), model, "small", size, {"flip_lr": 0.0, **changes}, seed=seed)

    def once() -> Figures:
        row = training.run(epochs).row
        return {"AP": row["AP"] or 0.0, "AP50": row["AP50"] or 0.0}

    return once


if __name__ == "__main__":
    typer.run(main)
