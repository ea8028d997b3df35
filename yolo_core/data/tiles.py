"""Where the images of a sample lie: the layouts of four and nine tiles, and of a single image.

The plane is the canvas of the public recipe: 2 x `size` px for a mosaic, `size` px for a single image.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from yolo_core.data.coco import DetectionDataset
from yolo_core.data.image import fitted


class Tile(NamedTuple):
    """The place of image `index` on the plane: top left corner and size in plane px; it may extend beyond the plane."""

    index: int
    x: int
    y: int
    width: int
    height: int


def four(dataset: DetectionDataset, size: int, rng: np.random.Generator, index: int) -> list[Tile]:
    """Image `index` and three random ones, which meet at a random centre."""
    centre_x, centre_y = (int(c) for c in rng.integers(size // 2, size + size // 2, 2, endpoint=True))
    tiles = []
    for corner, (i, width, height) in enumerate(_drawn(dataset, size, rng, index, 3)):
        x = centre_x if corner % 2 else centre_x - width  # top left, top right, bottom left, bottom right
        y = centre_y if corner // 2 else centre_y - height
        tiles.append(Tile(i, x, y, width, height))
    return tiles


def nine(dataset: DetectionDataset, size: int, rng: np.random.Generator, index: int) -> list[Tile]:
    """Image `index` and a ring of eight random ones, clockwise from the top; the plane shows a random part of them."""
    drawn = _drawn(dataset, size, rng, index, 8)
    left, top = (int(offset) for offset in size - rng.integers(size, size=2))  # of the middle tile
    w, h = zip(*((width, height) for _, width, height in drawn), strict=True)
    corners = (
        (0, 0),
        (0, -h[1]),
        (w[1], -h[2]),
        (w[0], 0),
        (w[0], h[3]),
        (w[0] - w[5], h[0]),
        (w[0] - w[5] - w[6], h[0]),
        (-w[7], h[0] - h[7]),
        (-w[8], h[0] - h[7] - h[8]),
    )
    places = zip(drawn, corners, strict=True)
    return [Tile(i, left + x, top + y, width, height) for (i, width, height), (x, y) in places]


def single(dataset: DetectionDataset, size: int, index: int) -> list[Tile]:
    """Image `index`, letterboxed."""
    width, height = fitted(dataset.images[index].width, dataset.images[index].height, size)
    return [Tile(index, (size - width) // 2, (size - height) // 2, width, height)]


def placed(dataset: DetectionDataset, tiles: Sequence[Tile]) -> np.ndarray:
    """(K, 4) float64: plane px per image px in x and y, then x and y of the tile on the plane."""
    records = [dataset.images[tile.index] for tile in tiles]
    places = [(t.width / r.width, t.height / r.height, t.x, t.y) for t, r in zip(tiles, records, strict=True)]
    return np.array(places, np.float64)


def to_source(start: int, ratio: float, scale: float, shift: float) -> tuple[float, float]:
    """(a, b) of source pixel index = a * output pixel index + b along one axis; `ratio`: source px per plane px.

    start: of the tile, in plane px; scale, shift: output px = scale * plane px + shift.
    """
    a, b = 1 / scale, -shift / scale - start
    return a * ratio, (b + 0.5) * ratio - 0.5


def _drawn(
    dataset: DetectionDataset, size: int, rng: np.random.Generator, index: int, others: int
) -> list[tuple[int, int, int]]:
    """Image `index` and `others` random ones: (index, width, height) with longer side `size`."""
    indices = [index, *dataset.others(rng, others)]
    return [(i, *fitted(dataset.images[i].width, dataset.images[i].height, size)) for i in indices]
