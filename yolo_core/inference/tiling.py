"""Large images in overlapping tiles, so that small objects are seen at a useful size, and whole, for the large ones.

A box that ends at an inner border of its tile may be a part of an object. It is dropped if a box that is not cut covers
most of it, as the neighbouring tile or the whole image sees the object entirely; parts that nothing covers are joined
across the border. The result does not depend on the order of the tiles.
"""

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from yolo_core.errors import BadArgument
from yolo_core.evaluate.nms import suppress
from yolo_core.evaluate.suppression import Suppression

Region: TypeAlias = tuple[int, int, int, int]  # x1, y1, x2, y2 px of the image

COVERED = 0.5  # fraction of a cut box that another box of its class must cover, to be the same object
BORDER = 0.01  # a box that ends within this fraction of the tile from its border is cut


@dataclass(frozen=True)
class Tiling:
    """How images are cut."""

    size: int
    """Side of a tile, px of the image."""
    overlap: float
    """Least fraction of a tile that it shares with the next one: from 0 to below 1."""

    def __post_init__(self) -> None:
        if self.size < 1:
            raise BadArgument("tile", f"= {self.size}: give the side of a tile in px")
        if not 0 <= self.overlap < 1:
            raise BadArgument("overlap", f"= {self.overlap}: give a fraction from 0 to below 1")

    def regions(self, width: int, height: int) -> list[Region]:
        """The tiles, row by row; none if the image is no larger than one."""
        if width <= self.size and height <= self.size:
            return []
        return [
            (x, y, min(x + self.size, width), min(y + self.size, height))
            for y in self._starts(height)
            for x in self._starts(width)
        ]

    def _starts(self, length: int) -> list[int]:
        """Where tiles begin, evenly spread from edge to edge."""
        spare = length - self.size
        if spare <= 0:
            return [0]
        steps = math.ceil(spare / (self.size * (1 - self.overlap)))
        return [round(step * spare / steps) for step in range(steps + 1)]


def is_cut(boxes_xyxy_px: np.ndarray, region: Region, width: int, height: int) -> np.ndarray:
    """Which of the boxes (N, 4) found in a region end at a border of it that is not a border of the image: (N,)."""
    x1, y1, x2, y2 = region
    inner = np.array([x1 > 0, y1 > 0, x2 < width, y2 < height])
    margin = BORDER * np.array([x2 - x1, y2 - y1] * 2)
    at_border = np.abs(boxes_xyxy_px - np.array(region)) <= margin
    return np.any(at_border & inner, axis=1)


def merged(rows: np.ndarray, cut: np.ndarray, suppression: Suppression) -> np.ndarray:
    """The objects among the detections (N, 6) of all tiles and of the whole image, best first.

    rows: x1, y1, x2, y2 px of the image, score, class index; cut: (N,), see `is_cut`.
    """
    order = np.lexsort((*rows[:, 3::-1].T, rows[:, 5], -rows[:, 4]))  # by score; equal ones by class, then corners
    rows, cut = rows[order], cut[order]
    whole = rows[~cut]
    whole = whole[suppress(whole[:, :4], whole[:, 5], suppression.iou, len(whole))]
    found = np.concatenate([whole, _joined(_uncovered(rows[cut], whole))])
    best = np.argsort(-found[:, 4], kind="stable")[: suppression.max_detections]
    return found[best]


def _uncovered(parts: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return parts[(_shares(parts, whole) <= COVERED).all(1)]


def _joined(parts: np.ndarray) -> np.ndarray:
    """One box around the parts, by falling score, of each object; its score is that of its best part."""
    objects: list[np.ndarray] = []
    for part in parts:
        same = next((one for one in objects if _is_same(part, one)), None)
        if same is None:
            objects.append(part.copy())
        else:
            same[:2], same[2:4] = np.minimum(same[:2], part[:2]), np.maximum(same[2:4], part[2:4])
    return np.array(objects).reshape(-1, 6)


def _is_same(part: np.ndarray, other: np.ndarray) -> bool:
    """Whether the smaller of two boxes of a class is mostly covered by the larger."""
    pair = (part[None], other[None])
    return bool(max(_shares(*pair)[0, 0], _shares(*pair[::-1])[0, 0]) > COVERED)


def _shares(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The fraction of each box that each other one of its class covers, (N, M); 0 for other classes."""
    a, b = rows[:, None, :4], others[None, :, :4]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    areas = (a[..., 2:] - a[..., :2]).prod(-1)
    share = sides.clip(0).prod(-1) / np.maximum(areas, np.finfo(float).tiny)
    return np.where(rows[:, None, 5] == others[None, :, 5], share, 0)
