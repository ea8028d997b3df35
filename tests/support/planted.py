"""Planted ground truths and detections whose score is known or can be compared."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from yolo_core.evaluate.detections import Detections

TrueBox = tuple[int, int, list[float], int]  # image id, category id, xywh px, crowd
Found = tuple[int, int, list[float], float]  # image id, category id, xywh px, score


def write_ground_truth(
    path: Path, truths: list[TrueBox], images, categories=((1, "cat"), (7, "dog")), areas=None
) -> Path:
    """An instances file. areas: of the ground truths, px2; those of their boxes by default."""
    areas = areas or [box[2] * box[3] for _, _, box, _ in truths]
    content: dict[str, Any] = {
        "images": [{"id": i, "width": 640, "height": 640, "file_name": f"{i}.jpg"} for i in images],
        "categories": [{"id": i, "name": name} for i, name in categories],
        "annotations": [
            {"id": n, "image_id": i, "category_id": c, "bbox": box, "area": area, "iscrowd": crowd}
            for n, ((i, c, box, crowd), area) in enumerate(zip(truths, areas, strict=True), start=1)
        ],
    }
    path.write_text(json.dumps(content))
    return path


def detections(*found: Found) -> Detections:
    names = ("image_id", "category_id", "bbox", "score")
    return Detections.of([dict(zip(names, one, strict=True)) for one in found])


def random_case(seed: int, images: int = 12) -> tuple[list[TrueBox], list[Found]]:
    """Ground truths (some crowds) and detections on and near them; all scores differ."""
    rng = np.random.default_rng(seed)
    truths, found = [], []
    for image in range(1, images + 1):
        for _ in range(rng.integers(0, 6)):
            box = [*rng.uniform(0, 500, 2), *np.exp(rng.uniform(2, 5, 2))]
            category = int(rng.choice([1, 7]))
            truths.append((image, category, [round(float(v), 2) for v in box], int(rng.random() < 0.15)))
            for _ in range(rng.integers(0, 4)):
                moved = np.array(box) + rng.normal(0, 0.08, 4) * [box[2], box[3], box[2], box[3]]
                other = int(rng.choice([1, 7])) if rng.random() < 0.2 else category
                found.append((image, other, moved.tolist(), float(rng.random())))
        found.append((image, 7, [*rng.uniform(0, 500, 2).tolist(), 40, 30], float(rng.random())))
    return truths, found
