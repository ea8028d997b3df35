"""The result of COCO scoring: figures, curves, and which detections were right.

Shapes: I images, K classes, T IoU thresholds, R recall points, D detections of one class.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class ClassMatches:
    """The detections of one class over all images, by falling score (at most 100 per image)."""

    image: np.ndarray
    """(D,) index into `CocoScore.image_ids`."""

    right: np.ndarray
    """(T, D) bool: matched to a ground truth."""

    ignored: np.ndarray
    """(T, D) bool: not counted, such as those matched to a crowd."""

    truths: np.ndarray
    """(I,) number of ground truths per image."""


@dataclass(frozen=True, eq=False)
class CocoScore:
    """How one set of detections scores against the ground truth."""

    figures: dict[str, float | None]
    """The 12 names of `coco_metrics.FIGURES`, 0..1; None where there is no ground truth."""

    per_class: dict[str, dict[str, float | None]]
    """AP and AP50 by class name."""

    precision: np.ndarray
    """(T, R, K) interpolated precision, -1 for a class without ground truth."""

    recall_points: np.ndarray
    """(R,) recall of each column of `precision`."""

    classes: list[str]
    """The K names."""

    image_ids: list[int]
    """Ids of the images that count, ascending."""

    match: Callable[[], list[ClassMatches]]
    """Matches detections to ground truths; see `matches`."""

    @cached_property
    def matches(self) -> list[ClassMatches]:
        """One per class, computed on first use."""
        return self.match()
