"""Weights of the classes in the classification loss, for data in which some classes are rare."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from yolo_core.errors import BadArgument

ClassWeights = Literal["balanced"] | Mapping[str, float]


def class_weights(wanted: ClassWeights, classes: Sequence[str], labels: Sequence[np.ndarray]) -> list[float]:
    """The weight of each class, by index.

    wanted: "balanced", or weights by name; classes without one have weight 1.
    classes: name by index. labels: per image (N, 5), the class index first.
    Raises BadArgument for "class_weights" for an unknown name, and for weights of the only class.
    """
    if wanted == "balanced":
        return _balanced(np.concatenate([rows[:, 0] for rows in labels]), len(classes))
    for name in wanted:
        if name not in classes:
            near = difflib.get_close_matches(name, classes, n=3, cutoff=0.4)
            choices = f"did you mean {', '.join(near)}?" if near else f"the data have {', '.join(classes[:20])}"
            raise BadArgument("class_weights", f"names the unknown class {name!r}; {choices}")
    if wanted and len(classes) == 1:
        raise BadArgument("class_weights", "has no effect on a single class, which has no class loss; remove it")
    return [wanted.get(name, 1.0) for name in classes]


def _balanced(class_index: np.ndarray, count: int) -> list[float]:
    """Inversely proportional to the boxes of the class, such that all classes weigh the same in total and the mean over
    the boxes is 1. A class without boxes has weight 1."""
    boxes = np.bincount(class_index.astype(np.int64), minlength=count)
    present = boxes > 0
    weights = boxes.sum() / (present.sum() * np.maximum(boxes, 1)) if present.any() else np.ones(count)
    return np.where(present, weights, 1.0).tolist()
