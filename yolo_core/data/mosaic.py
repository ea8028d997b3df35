"""One training sample: a mosaic or a letterboxed image, scaled, shifted, flipped, mixed, colour-jittered, pasted into.

The public recipe resizes each tile, pastes the tiles on a canvas of twice the size and warps that canvas. Here
placement, scale, shift and flip are one matrix per tile, and each tile is warped once, directly into the rectangle of
the output that it covers. Coordinates:

    source  px of a tile's image as loaded, its longer side `source_size`
    plane   px of the canvas of the public recipe: 2 x size for a mosaic, size for a single image
    output  px of the sample

As in the public recipe, one affine map serves both pixel indices and box edges.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from yolo_core.data.coco import DetectionDataset
from yolo_core.data.colour import jitter
from yolo_core.data.image import FILL
from yolo_core.data.labels import place_boxes
from yolo_core.data.paste import paste
from yolo_core.data.sampling import SAMPLE, generator
from yolo_core.data.scratch import scratch
from yolo_core.data.tiles import Tile, four, nine, placed, single, to_source
from yolo_core.data.warp import draw
from yolo_core.hyperparameters import Hyperparameters

GREY = FILL * 0x010101  # a pixel of a canvas, see `_compose`
MIXUP_BETA = 8.0  # the weight of the first image in a mixup is drawn from Beta(8, 8)


class Affine(NamedTuple):
    """Plane to output: output = scale * plane + shift, then mirrored about the middle of `size` if flipped."""

    scale: float
    shift_x: float
    shift_y: float
    size: int
    flip: bool


class Region(NamedTuple):
    """Pixels x0 <= x < x1, y0 <= y < y1; empty if either range is."""

    x0: int
    x1: int
    y0: int
    y1: int

    @property
    def empty(self) -> bool:
        return self.x0 >= self.x1 or self.y0 >= self.y1

    def around(self, other: "Region") -> "Region":
        """The smallest region that contains both."""
        if self.empty or other.empty:
            return other if self.empty else self
        return Region(min(self.x0, other.x0), max(self.x1, other.x1), min(self.y0, other.y0), max(self.y1, other.y1))


NOWHERE = Region(0, 0, 0, 0)


def training_sample(
    dataset: DetectionDataset,
    hyp: Hyperparameters,
    size: int,
    seed: int,
    epoch: int,
    index: int,
    source_size: int | None = None,
    out: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The augmented sample `index` of one epoch: a pure function of its arguments.

    index: identifies the random draws; its image is index % len(dataset), so that a small dataset can be repeated.
    source_size: longer side in px at which images are loaded (default: `size`), the same for all sizes of a
        multi-scale run so that they share the cache.
    out: (3, size, size) uint8 array for the pixels; allocated if not given.
    Returns RGB planes (3, size, size) uint8 and labels (N, 5) float32: class index, cx, cy, w, h in px of the sample.
    """
    rng = generator(seed, SAMPLE, epoch, index)
    source, image = source_size or size, index % len(dataset)
    flip = rng.random() < hyp.flip_lr
    gains = 1 + rng.uniform(-1, 1, 3) * (hyp.hsv_h, hyp.hsv_s, hyp.hsv_v)
    if rng.random() < hyp.mosaic:
        canvas, drawn, labels = _compose(dataset, *_mosaic(dataset, hyp, size, flip, rng, image), source, "canvas")
        if rng.random() < hyp.mixup:
            share = rng.beta(MIXUP_BETA, MIXUP_BETA)
            (second,) = dataset.others(rng, 1)
            other, also, more = _compose(dataset, *_mosaic(dataset, hyp, size, flip, rng, second), source, "mixed in")
            cv2.addWeighted(canvas.view(np.uint8), share, other.view(np.uint8), 1 - share, 0, dst=canvas.view(np.uint8))
            drawn, labels = drawn.around(also), np.concatenate([labels, more])
    else:
        canvas, drawn, labels = _compose(dataset, *_single(dataset, hyp, size, flip, rng, image), source, "canvas")
    planes = np.empty((3, size, size), np.uint8) if out is None else out
    jitter(planes, canvas, *drawn, *gains)
    if hyp.paste_in and rng.random() < hyp.paste_in:
        labels = paste(planes, labels, dataset, source, flip, rng)
    return planes, labels


def _mosaic(
    dataset: DetectionDataset, hyp: Hyperparameters, size: int, flip: bool, rng: np.random.Generator, index: int
) -> tuple[list[Tile], int, Affine]:
    """Mosaic of image `index` and three or eight random ones; (tiles, plane side, affine)."""
    lay = nine if hyp.mosaic9 and rng.random() < hyp.mosaic9 else four
    return lay(dataset, size, rng, index), 2 * size, _affine(hyp, 2 * size, size, flip, rng)


def _single(
    dataset: DetectionDataset, hyp: Hyperparameters, size: int, flip: bool, rng: np.random.Generator, index: int
) -> tuple[list[Tile], int, Affine]:
    """Image `index` letterboxed; (tiles, plane side, affine)."""
    return single(dataset, size, index), size, _affine(hyp, size, size, flip, rng)


def _affine(hyp: Hyperparameters, plane: int, size: int, flip: bool, rng: np.random.Generator) -> Affine:
    """A random scale about the centre of the plane, which is mapped to a random point of the output."""
    scale = rng.uniform(1 - hyp.scale, 1 + hyp.scale)
    middle_x, middle_y = rng.uniform(0.5 - hyp.translate, 0.5 + hyp.translate, 2) * size
    return Affine(scale, middle_x - scale * plane / 2, middle_y - scale * plane / 2, size, flip)


def _compose(
    dataset: DetectionDataset, tiles: Sequence[Tile], plane: int, affine: Affine, source_size: int, buffer: str
) -> tuple[np.ndarray, Region, np.ndarray]:
    """Draw the tiles: canvas (size, size) uint32, red in the lowest byte, then green, blue and 0, in the scratch
    `buffer`; the region that is not plain grey; labels as in `training_sample`."""
    canvas = scratch(buffer, affine.size, affine.size, 4).view(np.uint32)[..., 0]
    canvas.fill(GREY)
    drawn = NOWHERE
    for tile in tiles:
        visible = Region(
            *_covered(tile.x, tile.width, plane, affine.scale, affine.shift_x, affine.size),
            *_covered(tile.y, tile.height, plane, affine.scale, affine.shift_y, affine.size),
        )
        if not visible.empty:
            drawn = drawn.around(_draw(canvas, dataset.image(tile.index, source_size), tile, visible, affine))
    return canvas, drawn, _boxes(dataset, tiles, plane, affine)


def _draw(canvas: np.ndarray, image: np.ndarray, tile: Tile, visible: Region, affine: Affine) -> Region:
    """Warp the visible part of one tile into the canvas; `visible` is before the flip, the returned region after it."""
    ax, bx = to_source(tile.x, image.shape[1] / tile.width, affine.scale, affine.shift_x)
    ay, by = to_source(tile.y, image.shape[0] / tile.height, affine.scale, affine.shift_y)
    if affine.flip:
        ax, bx = -ax, bx + ax * (affine.size - 1)
        visible = visible._replace(x0=affine.size - visible.x1, x1=affine.size - visible.x0)
    draw(canvas, image, *visible, ax, bx, ay, by)
    return visible


def _covered(start: int, length: int, plane: int, scale: float, shift: float, size: int) -> tuple[int, int]:
    """Output pixels (from, to) whose nearest plane pixel is in the tile, along one axis, before the flip.

    Neighbouring tiles share the bound between them, so they neither overlap nor leave a gap.
    """
    first, last = max(start, 0), min(start + length, plane)
    low = math.ceil((first - 0.5) * scale + shift)
    high = math.ceil((last - 0.5) * scale + shift)
    return max(low, 0), min(high, size)


def _boxes(dataset: DetectionDataset, tiles: Sequence[Tile], plane: int, affine: Affine) -> np.ndarray:
    """Labels of all tiles in the output: see `place_boxes`."""
    labels = [dataset.labels[tile.index] for tile in tiles]
    counts = np.array([len(part) for part in labels])
    return place_boxes(np.concatenate(labels), counts, placed(dataset, tiles), plane, *affine)
