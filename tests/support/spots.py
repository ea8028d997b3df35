"""Images of one white rectangle each, and a predictor that finds it: exact ground truth without any training."""

import json
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

WHITE = 0.85  # brighter than any padding


def write_spots(folder: Path, scenes: list[tuple[tuple[int, int], tuple[int, int, int, int]]]) -> Path:
    """A prepared val split: per scene ((width, height), xywh_px of the rectangle), dark elsewhere; category id 5."""
    (folder / "images/val").mkdir(parents=True)
    (folder / "annotations").mkdir()
    images, annotations = [], []
    for i, ((width, height), (x, y, w, h)) in enumerate(scenes, start=1):
        picture = np.full((height, width, 3), 40, np.uint8)
        picture[y : y + h, x : x + w] = 255
        cv2.imwrite(str(folder / f"images/val/{i}.png"), picture)
        images.append({"id": i, "file_name": f"{i}.png", "width": width, "height": height})
        annotations.append(
            {"id": i, "image_id": i, "category_id": 5, "bbox": [x, y, w, h], "area": w * h, "iscrowd": 0}
        )
    content = {"images": images, "annotations": annotations, "categories": [{"id": 5, "name": "spot"}]}
    (folder / "annotations/instances_val.json").write_text(json.dumps(content))
    return folder


def find_spot(images: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, 1, 6): the bounding box of the white pixels, objectness and probability 1."""
    rows = []
    for white in (images.amin(1) > WHITE).cpu():
        y, x = (line.any(axis).nonzero() for axis, line in ((1, white), (0, white)))
        left, right, top, bottom = x.min().item(), x.max().item() + 1, y.min().item(), y.max().item() + 1
        rows.append([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top, 1.0, 1.0])
    return torch.tensor(rows, device=images.device)[:, None]
