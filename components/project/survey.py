"""What a prepared dataset holds, as far as the proposal of `init` depends on it."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from components.datasets.prepared import load_prepared
from yolo_core.data.coco import DetectionDataset

SMALL_PX2 = 32**2  # COCO's limit of small objects
SMALLEST = 0.1  # the quantile of box sides that an input size should still show


@dataclass(frozen=True)
class Survey:
    """Images and boxes of both splits; crowd boxes, which are not trained on, do not count."""

    train_images: int
    val_images: int
    classes: Mapping[str, int]
    """Training boxes by class, those without any included."""
    image_side: int
    """Longer side of an image, px; the median."""
    box_side: float
    """Geometric mean of a box's sides as a fraction of its image's longer side; a tenth of the boxes is smaller."""
    small: float
    """Fraction of the boxes below 32 x 32 px in their image, COCO's small objects."""

    @property
    def boxes(self) -> int:
        """Training boxes."""
        return sum(self.classes.values())

    @classmethod
    def of(cls, data: Path) -> "Survey":
        """Survey a folder that `prepare` wrote. Raises UserError if it cannot be read."""
        train, val = load_prepared(data, "train"), load_prepared(data, "val")
        longer = np.array([max(image.width, image.height) for image in (*train.images, *val.images)])
        areas = np.concatenate([_areas(train), _areas(val)])
        sides = np.repeat(longer, [len(labels) for labels in (*train.labels, *val.labels)])
        counted = Counter(train.classes[int(index)] for labels in train.labels for index in labels[:, 0])
        return cls(
            train_images=len(train),
            val_images=len(val),
            classes={name: counted[name] for name in train.classes},
            image_side=int(np.median(longer)),
            box_side=float(np.quantile(np.sqrt(areas) / sides, SMALLEST)) if len(areas) else 1.0,
            small=float((areas < SMALL_PX2).mean()) if len(areas) else 0.0,
        )


def _areas(split: DetectionDataset) -> np.ndarray:
    """The area of each box, px^2, image by image."""
    boxes = np.concatenate([np.zeros((0, 5), np.float32), *split.labels])
    return (boxes[:, 3] - boxes[:, 1]) * (boxes[:, 4] - boxes[:, 2])
