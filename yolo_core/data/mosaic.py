"""One training sample: a mosaic or a letterboxed image, scaled, shifted, flipped, mixed and colour-jittered.

The public recipe resizes each tile, pastes the tiles on a canvas of twice the size and warps that canvas. Here the
placing, the scale, the shift and the flip are one matrix per tile, and each tile is warped once, straight into the
rectangle of the output that it covers. Coordinates:

    source  px of a tile's image as loaded, its longer side `source_size`
    plane   px of the canvas of the public recipe: 2 x size for a mosaic, size for a single image
    output  px of the sample

As in the public recipe one affine map serves both pixel indices and box edges.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from yolo_core.data.coco import DetectionDataset
from yolo_core.data.colour import jitter
from yolo_core.data.image import FILL, fitted
from yolo_core.data.sampling import SAMPLE, generator
from yolo_core.data.scratch import scratch
from yolo_core.hyperparameters import Hyperparameters

# A box stays when what is left of it in the output is worth learning from.
MIN_SIDE_PX = 2.0
MIN_AREA_LEFT = 0.1  # of its area before it was cut by the output's border
MAX_ASPECT = 20.0
MIXUP_BETA = 8.0  # the share of the first image in a mix is drawn from Beta(8, 8)


@dataclass(frozen=True)
class Tile:
    """Where image `index` lies on the plane: its corner and size in plane px; it may stick out."""

    index: int
    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Affine:
    """Plane to output: output = scale * plane + shift, then mirrored about the middle of `size` if flipped."""

    scale: float
    shift_x: float
    shift_y: float
    size: int
    flip: bool


@dataclass(frozen=True)
class Region:
    """Pixels x0 <= x < x1, y0 <= y < y1; empty unless both ranges hold one."""

    x0: int
    x1: int
    y0: int
    y1: int

    def __bool__(self) -> bool:
        return self.x0 < self.x1 and self.y0 < self.y1

    def __or__(self, other: "Region") -> "Region":
        """The smallest region that holds both."""
        if not (self and other):
            return self or other
        return Region(min(self.x0, other.x0), max(self.x1, other.x1), min(self.y0, other.y0), max(self.y1, other.y1))

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of these pixels in an image."""
        return (slice(self.y0, self.y1), slice(self.x0, self.x1)) if self else (slice(0), slice(0))


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

    index: names the draw; its image is index % len(dataset), so a small dataset can be gone through more than once.
    source_size: longer side in px at which images are loaded (default: `size`), one value for all the sizes of a
        multi-scale run so that they share the cache.
    out: (size, size, 3) uint8 array for the pixels; a new one if not given.
    Returns RGB (size, size, 3) uint8 and labels (N, 5) float32: class index, cx, cy, w, h in px of the sample.
    """
    rng = generator(seed, SAMPLE, epoch, index)
    source, image = source_size or size, index % len(dataset)
    flip = rng.random() < hyp.flip_lr
    gains = 1 + rng.uniform(-1, 1, 3) * (hyp.hsv_h, hyp.hsv_s, hyp.hsv_v)
    if rng.random() < hyp.mosaic:
        canvas, drawn, labels = _compose(dataset, *_mosaic(dataset, hyp, size, flip, rng, image), source, "canvas")
        if rng.random() < hyp.mixup:
            share = rng.beta(MIXUP_BETA, MIXUP_BETA)
            second = int(rng.integers(len(dataset)))
            other, also, more = _compose(dataset, *_mosaic(dataset, hyp, size, flip, rng, second), source, "mixed in")
            cv2.addWeighted(canvas, share, other, 1 - share, 0, dst=canvas)
            drawn, labels = drawn | also, np.concatenate([labels, more])
    else:
        canvas, drawn, labels = _compose(dataset, *_single(dataset, hyp, size, flip, rng, image), source, "canvas")
    return jitter(canvas, gains, drawn.slices, out), labels


def _mosaic(
    dataset: DetectionDataset, hyp: Hyperparameters, size: int, flip: bool, rng: np.random.Generator, index: int
) -> tuple[list[Tile], int, Affine]:
    """Image `index` among three or eight drawn ones; (tiles, plane side, affine)."""
    lay = _nine if hyp.mosaic9 and rng.random() < hyp.mosaic9 else _four
    return lay(dataset, size, rng, index), 2 * size, _affine(hyp, 2 * size, size, flip, rng)


def _four(dataset: DetectionDataset, size: int, rng: np.random.Generator, index: int) -> list[Tile]:
    """Four tiles that meet in a drawn centre."""
    centre_x, centre_y = (int(c) for c in rng.integers(size // 2, size + size // 2, 2, endpoint=True))
    tiles = []
    for corner, (i, width, height) in enumerate(_drawn(dataset, size, rng, index, 3)):
        x = centre_x if corner % 2 else centre_x - width  # top left, top right, bottom left, bottom right
        y = centre_y if corner // 2 else centre_y - height
        tiles.append(Tile(i, x, y, width, height))
    return tiles


def _nine(dataset: DetectionDataset, size: int, rng: np.random.Generator, index: int) -> list[Tile]:
    """A tile and a ring of eight around it, clockwise from above; the plane shows a drawn part of them."""
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


def _drawn(
    dataset: DetectionDataset, size: int, rng: np.random.Generator, index: int, others: int
) -> list[tuple[int, int, int]]:
    """Image `index` and drawn ones: (index, width, height) with the longer side `size`."""
    indices = [index, *(int(i) for i in rng.integers(len(dataset), size=others))]
    return [(i, *fitted(dataset.images[i].width, dataset.images[i].height, size)) for i in indices]


def _single(
    dataset: DetectionDataset, hyp: Hyperparameters, size: int, flip: bool, rng: np.random.Generator, index: int
) -> tuple[list[Tile], int, Affine]:
    """Image `index` letterboxed; (tiles, plane side, affine)."""
    width, height = fitted(dataset.images[index].width, dataset.images[index].height, size)
    tile = Tile(index, (size - width) // 2, (size - height) // 2, width, height)
    return [tile], size, _affine(hyp, size, size, flip, rng)


def _affine(hyp: Hyperparameters, plane: int, size: int, flip: bool, rng: np.random.Generator) -> Affine:
    """Scale about the middle of the plane and put the middle at a drawn point of the output."""
    scale = rng.uniform(1 - hyp.scale, 1 + hyp.scale)
    middle_x, middle_y = rng.uniform(0.5 - hyp.translate, 0.5 + hyp.translate, 2) * size
    return Affine(scale, middle_x - scale * plane / 2, middle_y - scale * plane / 2, size, flip)


def _compose(
    dataset: DetectionDataset, tiles: Sequence[Tile], plane: int, affine: Affine, source_size: int, buffer: str
) -> tuple[np.ndarray, Region, np.ndarray]:
    """Draw the tiles: canvas (size, size, 4) uint8 RGB with an unused fourth channel in the scratch `buffer`, the
    region that is not plain grey, and labels as of `training_sample`."""
    canvas = scratch(buffer, affine.size, affine.size, 4)
    canvas.fill(FILL)
    drawn = NOWHERE
    for tile in tiles:
        visible = Region(
            *_covered(tile.x, tile.width, plane, affine.scale, affine.shift_x, affine.size),
            *_covered(tile.y, tile.height, plane, affine.scale, affine.shift_y, affine.size),
        )
        if visible:
            drawn |= _draw(canvas, dataset.image(tile.index, source_size), tile, visible, affine)
    return canvas, drawn, _boxes(dataset, tiles, plane, affine)


def _draw(canvas: np.ndarray, image: np.ndarray, tile: Tile, visible: Region, affine: Affine) -> Region:
    """Warp what is seen of one tile into the canvas; `visible` is before the flip, the returned region after it."""
    ax, bx = _to_source(tile.x, image.shape[1] / tile.width, affine.scale, affine.shift_x)
    ay, by = _to_source(tile.y, image.shape[0] / tile.height, affine.scale, affine.shift_y)
    left, right = _read(ax, bx, visible.x0, visible.x1, image.shape[1])
    top, bottom = _read(ay, by, visible.y0, visible.y1, image.shape[0])
    # OpenCV warps four channels twice as fast as three.
    seen = scratch("seen", bottom - top, right - left, 4)
    cv2.cvtColor(image[top:bottom, left:right], cv2.COLOR_RGB2RGBA, dst=seen)
    if affine.flip:
        ax, bx = -ax, bx + ax * (affine.size - 1)
        visible = replace(visible, x0=affine.size - visible.x1, x1=affine.size - visible.x0)
    cv2.warpAffine(
        seen,
        np.array([[ax, 0, ax * visible.x0 + bx - left], [0, ay, ay * visible.y0 + by - top]]),
        (visible.x1 - visible.x0, visible.y1 - visible.y0),
        dst=canvas[visible.slices],
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return visible


def _covered(start: int, length: int, plane: int, scale: float, shift: float, size: int) -> tuple[int, int]:
    """Output pixels (from, to) whose nearest plane pixel lies in the tile, along one axis, before the flip.

    Neighbouring tiles share the bound between them, so they neither overlap nor leave a gap.
    """
    first, last = max(start, 0), min(start + length, plane)
    low = int(np.ceil((first - 0.5) * scale + shift))
    high = int(np.ceil((last - 0.5) * scale + shift))
    return max(low, 0), min(high, size)


def _to_source(start: int, ratio: float, scale: float, shift: float) -> tuple[float, float]:
    """(a, b) of source pixel index = a * output pixel index + b along one axis; `ratio`: source px per plane px."""
    a, b = 1 / scale, -shift / scale - start
    return a * ratio, (b + 0.5) * ratio - 0.5


def _read(a: float, b: float, first: int, last: int, length: int) -> tuple[int, int]:
    """Source pixels (from, to) that interpolation reads for output pixels first .. last - 1."""
    low = int(np.floor(a * first + b))
    high = int(np.floor(a * (last - 1) + b)) + 2
    return min(max(low, 0), length - 1), min(max(high, 1), length)


def _boxes(dataset: DetectionDataset, tiles: Sequence[Tile], plane: int, affine: Affine) -> np.ndarray:
    """Labels of all tiles in the output: (N, 5) float32 class index, cx, cy, w, h px; hopeless ones left out."""
    labels = [dataset.labels[tile.index] for tile in tiles]
    rows = np.concatenate(labels)
    records = [dataset.images[tile.index] for tile in tiles]
    per_tile = np.array(
        [(t.width / r.width, t.height / r.height, t.x, t.y) for t, r in zip(tiles, records, strict=True)], np.float32
    )
    place = np.repeat(per_tile, [len(part) for part in labels], axis=0)
    on_plane = (rows[:, 1:].reshape(-1, 2, 2) * place[:, None, :2] + place[:, None, 2:]).clip(0, plane)
    scale = np.float32(affine.scale)
    whole = on_plane * scale + np.array((affine.shift_x, affine.shift_y), np.float32)
    cut = whole.clip(0, affine.size)
    sides = cut[:, 1] - cut[:, 0]
    kept = _worth_learning(whole[:, 1] - whole[:, 0], sides)
    centres = (cut[:, 0] + cut[:, 1]) / 2
    if affine.flip:
        centres[:, 0] = affine.size - centres[:, 0]
    return np.concatenate([rows[:, :1], centres, sides], axis=1)[kept]


def _worth_learning(before_wh_px: np.ndarray, after_wh_px: np.ndarray) -> np.ndarray:
    """Which boxes to keep, (N,) bool, by their sides (N, 2) before and after the cut."""
    width, height = after_wh_px[:, 0], after_wh_px[:, 1]
    left = width * height > MIN_AREA_LEFT * before_wh_px.prod(axis=1)
    aspect = np.maximum(width, height) < MAX_ASPECT * np.minimum(width, height)
    return (width > MIN_SIDE_PX) & (height > MIN_SIDE_PX) & left & aspect
