"""Recipes for other trainings than the papers': for few images or little time, and for fine-tuning.

A recipe changes a model's published hyperparameters. docs/training.md has the measurements behind these.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from yolo_core.hyperparameters import Hyperparameters

RecipeName = Literal["published", "small", "fine-tune"]


@dataclass(frozen=True)
class Recipe:
    """How to train any of the models."""

    changes: Mapping[str, float]
    """Hyperparameters that differ from the model's published ones."""
    nominal_batch: int
    """Images per update of the weights."""
    ema_tau: float
    """Updates over which the decay of the average weights ramps up."""

    def hyperparameters(self, published: Hyperparameters) -> Hyperparameters:
        """Those of a model, from its published ones."""
        return published.replace(**self.changes)


# What the papers' recipes take for granted: 118,000 images of 80 classes, 640 px and more, 300 epochs.
_SMALL = {
    "lr0": 0.05,  # the weights are updated after 16 images, not 64
    "lrf": 0.05,
    "warmup_epochs": 1.0,
    "warmup_iterations": 0.0,
    "cls": 0.5,
    "cls_count_power": 0.0,  # else ten classes have an eighth of the gain
    "obj": 0.7,
    "obj_size_power": 0.0,  # else SimOTA's losses have a ninth of the gain at 192 px
    "simota_from": 1.0,  # SimOTA selects by predictions, which mean nothing for most of a short training
    "translate": 0.1,
    "scale": 0.4,
    "mosaic": 0.25,
    "mixup": 0.0,
}

RECIPES: dict[RecipeName, Recipe] = {
    "published": Recipe({}, nominal_batch=64, ema_tau=2000),
    "small": Recipe(_SMALL, nominal_batch=16, ema_tau=100),
    "fine-tune": Recipe({**_SMALL, "lr0": 0.01}, nominal_batch=16, ema_tau=100),
}
