"""Pastes single objects of other images into a finished sample, as the recipe of YOLOv7 does.

Candidates are objects of random mosaics. Each of 20 random places, large ones first, takes one of them unless it would
hide too much of a label; the object keeps its aspect ratio and its colours, and gets a label of its own.
The original cuts objects out along their outlines. Prepared data have boxes only, so whole boxes are pasted.
"""

import numpy as np

from yolo_core.compiled import compiled
from yolo_core.data.coco import DetectionDataset
from yolo_core.data.scratch import scratch
from yolo_core.data.tiles import Tile, four, placed, to_source
from yolo_core.data.warp import draw

OBJECTS = 30  # mosaics are drawn until this many objects are candidates
SHARE = 0.5  # of the objects of a mosaic, drawn at random
FRACTIONS = np.repeat([0.75, 0.5, 0.25, 0.125, 0.0625], [2, 4, 4, 4, 6])  # largest side of each place, of the sample's
TRIED = 0.8  # probability that a place is tried
MIN_PLACE_PX = 20  # sides of a place are longer
MIN_OBJECT_PX = 10  # sides of a pasted object are longer
MAX_HIDDEN = 0.3  # share of a label's area that a place may cover, exclusive


def paste(
    planes: np.ndarray,
    labels: np.ndarray,
    dataset: DetectionDataset,
    source_size: int,
    flip: bool,
    rng: np.random.Generator,
) -> np.ndarray:
    """Paste into planes (3, S, S) uint8; returns `labels` (N, 5), as of `training_sample`, and those of the objects.

    source_size: see `training_sample`. flip: whether the sample is mirrored; the objects are then mirrored too.
    """
    size = planes.shape[-1]
    tiles, objects = _candidates(dataset, size, rng)
    places = choose(rng.random((len(FRACTIONS), 6)), objects[:, 4:] - objects[:, 2:4], _corners(labels), size, flip)
    for number, x, y, width, height in places:
        tile, _, left, top, right, bottom = objects[number]
        image = dataset.image(tiles[tile].index, source_size)
        across = _resampled(tiles[tile].x, image.shape[1] / tiles[tile].width, left, right - left, width)
        down = _resampled(tiles[tile].y, image.shape[0] / tiles[tile].height, top, bottom - top, height)
        pixels = scratch("canvas", height, width, 4)
        draw(pixels.view(np.uint32)[..., 0], image, 0, width, 0, height, *_mirrored(*across, width, flip), *down)
        planes[:, y : y + height, x : x + width] = pixels[..., :3].transpose(2, 0, 1)
    corners, sides = places[:, 1:3].astype(np.float32), places[:, 3:].astype(np.float32)
    pasted = np.concatenate([objects[places[:, 0], 1:2], corners + sides / 2, sides], axis=1, dtype=np.float32)
    return np.concatenate([labels, pasted])


def _candidates(dataset: DetectionDataset, size: int, rng: np.random.Generator) -> tuple[list[Tile], np.ndarray]:
    """Objects of random mosaics: their tiles, and (M, 6) int64 number of the tile, class index, x1, y1, x2, y2 px on
    the plane; none if the first mosaic has none."""
    tiles: list[Tile] = []
    objects = np.empty((0, 6), np.int64)
    for _ in range(OBJECTS):  # mosaics, at most: few objects may be labelled at all
        mosaic = four(dataset, size, rng, *dataset.others(rng, 1))
        found = _on_plane(dataset, mosaic, 2 * size)
        found = found[rng.permutation(len(found))[: round(SHARE * len(found))]]
        found = found[(found[:, 4:] > found[:, 2:4]).all(axis=1)]
        found[:, 0] += len(tiles)
        tiles, objects = tiles + mosaic, np.concatenate([objects, found])
        if not 0 < len(objects) < OBJECTS:
            break
    return tiles, objects


def _on_plane(dataset: DetectionDataset, tiles: list[Tile], plane: int) -> np.ndarray:
    """The objects of the tiles, as of `_candidates`, clipped to the plane; the numbers of the tiles start at 0."""
    rows = [dataset.labels[tile.index] for tile in tiles]
    owner = np.repeat(np.arange(len(tiles)), [len(part) for part in rows])
    where, boxes = placed(dataset, tiles)[owner], np.concatenate(rows)
    corners = boxes[:, 1:].reshape(-1, 2, 2) * where[:, None, :2] + where[:, None, 2:]
    whole = corners.reshape(-1, 4).clip(0, plane - 1).astype(np.int64)
    return np.concatenate([owner[:, None], boxes[:, :1].astype(np.int64), whole], axis=1)


@compiled
def choose(draws, sides, taken, size, flip):
    """The places that take an object: (P, 5) int64 number of the object, x, y, w, h px.

    draws: (20, 6) uniform in [0, 1), for each place whether it is tried, h, w, x, y and the object;
    sides: (M, 2) int64 w, h px of the objects; taken: (N, 4) float64 x1, y1, x2, y2 px of the labels.
    Places are drawn on the sample before it is mirrored, if `flip`.
    """
    places, count = np.empty((len(draws), 5), np.int64), 0
    boxes = np.empty((len(taken) + len(draws), 4))
    boxes[: len(taken)] = taken
    for place in range(len(draws) if len(sides) else 0):
        tried, tall, wide, across, down, which = draws[place]
        most = int(size * FRACTIONS[place])
        width, height = 1 + int(wide * most), 1 + int(tall * most)
        x, y = max(int(across * (size + 1)) - width // 2, 0), max(int(down * (size + 1)) - height // 2, 0)
        width, height = min(width, size - x), min(height, size - y)
        if tried >= TRIED or width <= MIN_PLACE_PX or height <= MIN_PLACE_PX:
            continue
        left = size - x - width if flip else x
        if _hides(boxes[: len(taken) + count], left, y, left + width, y + height):
            continue
        number = int(which * len(sides))
        factor = min(width / sides[number, 0], height / sides[number, 1])
        full, width, height = width, int(sides[number, 0] * factor), int(sides[number, 1] * factor)
        if width > MIN_OBJECT_PX and height > MIN_OBJECT_PX:
            left += full - width if flip else 0  # the top left corner before mirroring
            places[count] = number, left, y, width, height
            boxes[len(taken) + count] = left, y, left + width, y + height
            count += 1
    return places[:count]


@compiled
def _hides(boxes, x1, y1, x2, y2):
    """Whether a place covers `MAX_HIDDEN` of any box."""
    for i in range(len(boxes)):
        left, top, right, bottom = boxes[i]
        width, height = min(right, x2) - max(left, x1), min(bottom, y2) - max(top, y1)
        if width > 0 and height > 0 and width * height >= MAX_HIDDEN * (right - left) * (bottom - top):
            return True
    return False


def _corners(labels: np.ndarray) -> np.ndarray:
    """(N, 5) class, cx, cy, w, h -> (N, 4) float64 x1, y1, x2, y2."""
    centres, halves = labels[:, 1:3].astype(np.float64), labels[:, 3:] / 2
    return np.concatenate([centres - halves, centres + halves], axis=1)


def _resampled(start: int, ratio: float, first: int, length: int, wanted: int) -> tuple[float, float]:
    """`to_source` for an object's `length` plane px from `first` on, drawn at `wanted` px: pixel edges meet."""
    scale = wanted / length
    return to_source(start, ratio, scale, scale * (0.5 - first) - 0.5)


def _mirrored(a: float, b: float, length: int, flip: bool) -> tuple[float, float]:
    return (-a, b + a * (length - 1)) if flip else (a, b)
