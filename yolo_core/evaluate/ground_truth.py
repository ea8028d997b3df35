"""The ground truth that detections are scored against, as columns."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """I images, K classes, G boxes in the order of their file, crowds included.

    image_ids: (I,) int64, ascending; category_ids: (K,) int64, ascending; classes: the K names.
    image, category: (G,) indices into those; xywh_px: (G, 4); area: (G,) px2; crowd: (G,) bool.
    """

    image_ids: np.ndarray
    category_ids: np.ndarray
    classes: list[str]
    image: np.ndarray
    category: np.ndarray
    xywh_px: np.ndarray
    area: np.ndarray
    crowd: np.ndarray


def read_ground_truth(path: Path | str, image_ids: Iterable[int] | None = None) -> GroundTruth:
    """The ground truth of a COCO instances file, for all its images or the given ones.

    Raises KeyError for a file that is not COCO instances.
    """
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    images = np.unique([i["id"] for i in content["images"]] if image_ids is None else list(image_ids)).astype(np.int64)
    categories = sorted((c["id"], c["name"]) for c in content["categories"])
    category_ids = np.array([c for c, _ in categories], np.int64)
    boxes = content["annotations"]
    image, on_image = positions(np.array([b["image_id"] for b in boxes], np.int64), images)
    category, of_class = positions(np.array([b["category_id"] for b in boxes], np.int64), category_ids)
    counts = on_image & of_class
    return GroundTruth(
        image_ids=images,
        category_ids=category_ids,
        classes=[name for _, name in categories],
        image=image[counts],
        category=category[counts],
        xywh_px=np.array([b["bbox"] for b in boxes], np.float64).reshape(-1, 4)[counts],
        area=np.array([b["area"] for b in boxes], np.float64)[counts],
        crowd=np.array([b.get("iscrowd", 0) for b in boxes], bool)[counts],
    )


def positions(values: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index of each of (N,) values in ascending `known`, and whether it is in there."""
    if not len(known):
        return np.zeros(len(values), np.int64), np.zeros(len(values), bool)
    index = np.minimum(np.searchsorted(known, values), len(known) - 1)
    return index, known[index] == values
