"""Writes small prepared dataset folders for the tests of the data plane."""

import json
from pathlib import Path

import cv2
import numpy as np


def picture(width: int, height: int, seed: int) -> np.ndarray:
    """A photograph-like image, RGB (height, width, 3): soft colours with a few hard edges."""
    rng = np.random.default_rng(seed)
    soft = cv2.resize(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(4):
        x, y = (int(v) for v in rng.integers(0, (width, height)))
        cv2.circle(soft, (x, y), int(rng.integers(8, 40)), tuple(int(v) for v in rng.integers(0, 256, 3)), -1)
    return soft


def boxes(width: int, height: int, count: int, seed: int) -> list[list[float]]:
    """`count` xywh_px boxes inside the image, some of them tiny."""
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.random((count, 2, 2)) ** 1.5, axis=1) * (width, height)
    return [[float(v) for v in (*a, *(b - a + 0.5))] for a, b in corners]


def write_split(
    folder: Path, sizes: list[tuple[int, int]], split: str = "train", annotations: list[dict] | None = None
) -> Path:
    """A prepared folder with one PNG per (width, height); five boxes of three classes each unless given."""
    images = folder / "images" / split
    images.mkdir(parents=True, exist_ok=True)
    (folder / "annotations").mkdir(exist_ok=True)
    records = []
    for i, (width, height) in enumerate(sizes):
        cv2.imwrite(str(images / f"{i}.png"), picture(width, height, i)[..., ::-1])
        records.append({"id": 100 + i, "file_name": f"{i}.png", "width": width, "height": height})
    if annotations is None:
        annotations = [
            {"image_id": 100 + i, "category_id": (7, 3, 12)[k % 3], "bbox": box}
            for i, (width, height) in enumerate(sizes)
            for k, box in enumerate(boxes(width, height, 5, i))
        ]
    content = {
        "images": records,
        "annotations": [{"id": k, "iscrowd": 0, **a} for k, a in enumerate(annotations)],
        "categories": [{"id": 7, "name": "seven"}, {"id": 3, "name": "three"}, {"id": 12, "name": "twelve"}],
    }
    (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return folder
