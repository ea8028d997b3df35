"""Scenes of handwritten digits on photographs: a detection dataset composed from arrays, with nothing to download.

`scene` is a pure function of its arguments: the glyphs, the photographs and a key (seed, split, index).
"""

from dataclasses import dataclass

import cv2
import numpy as np

EMPTY_FRACTION = 0.04
MAX_OBJECTS = 4
MAX_LARGE = 2
MIN_VISIBLE = 0.85  # visible share of a box that others overlap
NEIGHBOUR_FRACTION = 0.15  # share of objects placed close to an earlier one
INK = 0.5  # opacity at which a pixel counts towards the glyph's box
# Side ranges in px (square root of the box area) around COCO's limits of 32 and 96, and how often each is drawn.
SIDE_RANGES_PX = ((26.0, 31.0), (40.0, 92.0), (98.0, 170.0))
RANGE_WEIGHTS = (0.15, 0.5, 0.35)
LARGEST_SIDE = 0.85  # of the image's shorter side


@dataclass(frozen=True)
class Scene:
    """One image with its boxes."""

    image: np.ndarray
    """RGB (H, W, 3) uint8."""
    xywh_px: np.ndarray
    """(N, 4) int, tight around the ink."""
    labels: np.ndarray
    """(N,) int, digits 0 to 9."""


def scene(
    glyphs: np.ndarray,
    labels: np.ndarray,
    photographs: list[np.ndarray],
    *,
    size_px: int,
    key: tuple[int, int, int],
) -> Scene:
    """Compose one image.

    glyphs: (G, 8, 8) float, ink 0 to 1; labels: (G,) the digit of each; photographs: (h, w, 3) uint8 RGB;
    size_px: the longer side of the image; key: (seed, split, index), equal keys give equal scenes.
    """
    rng = np.random.Generator(np.random.PCG64(key))
    image = _background(photographs, size_px, rng)
    count = 0 if rng.random() < EMPTY_FRACTION else int(rng.integers(1, MAX_OBJECTS + 1))
    boxes: list[tuple[int, int, int, int]] = []
    digits: list[int] = []
    owner = np.full(image.shape[:2], -1, np.int16)  # the topmost box at each pixel
    for side in sorted(_sides_px(count, min(image.shape[:2]), rng), reverse=True):
        chosen = int(rng.integers(len(glyphs)))
        alpha = _render(glyphs[chosen], side, rng)
        box = _place(alpha.shape, boxes, owner, rng)
        if box is None:
            continue
        x, y, w, h = box
        owner[y : y + h, x : x + w] = len(boxes)
        _paint(image[y : y + h, x : x + w], alpha, rng)
        boxes.append(box)
        digits.append(int(labels[chosen]))
    return Scene(image, np.array(boxes, np.int64).reshape(-1, 4), np.array(digits, np.int64))


def _background(photographs: list[np.ndarray], size_px: int, rng: np.random.Generator) -> np.ndarray:
    """A random crop of a random photograph, resized so that its longer side is `size_px`, slightly dimmed."""
    photograph = photographs[int(rng.integers(len(photographs)))]
    shorter = round(size_px / rng.uniform(1.0, 1.35))
    width, height = (size_px, shorter) if rng.random() < 0.6 else (shorter, size_px)
    photo_h, photo_w = photograph.shape[:2]
    scale = rng.uniform(0.4, 1.0) * min(photo_w / width, photo_h / height)
    crop_w, crop_h = int(width * scale), int(height * scale)
    x = int(rng.integers(photo_w - crop_w + 1))
    y = int(rng.integers(photo_h - crop_h + 1))
    crop = photograph[y : y + crop_h, x : x + crop_w]
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    image = cv2.resize(np.ascontiguousarray(crop), (width, height), interpolation=cv2.INTER_LINEAR)
    gain, offset = rng.uniform(0.35, 0.7), rng.uniform(0, 100)
    return cv2.convertScaleAbs(image, alpha=gain, beta=offset)


def _sides_px(count: int, shorter_px: int, rng: np.random.Generator) -> list[float]:
    """Square roots of the areas of `count` objects, from COCO's three size ranges as far as they fit the image."""
    limit = LARGEST_SIDE * shorter_px
    ranges = [(low, min(high, limit)) for low, high in SIDE_RANGES_PX]
    fits = np.array([high > low for low, high in ranges])
    weights = np.array(RANGE_WEIGHTS) * fits
    if not weights.any():  # a very small image
        return [limit * float(rng.uniform(0.6, 1.0)) for _ in range(count)]
    drawn = rng.choice(3, size=count, p=weights / weights.sum())
    drawn[np.flatnonzero(drawn == 2)[MAX_LARGE:]] = 0
    return [float(np.exp(rng.uniform(*np.log(ranges[index])))) for index in drawn]


def _render(glyph: np.ndarray, side_px: float, rng: np.random.Generator) -> np.ndarray:
    """Opacity (h, w) float32 of a glyph, cropped to its ink, with an area of about side_px * side_px."""
    rows, columns = np.flatnonzero(glyph.any(axis=1)), np.flatnonzero(glyph.any(axis=0))
    ink = glyph[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.float32)
    ink = np.pad(ink, 2)
    h, w = ink.shape
    scale = side_px / np.sqrt((h - 4) * (w - 4))
    angle, shear = rng.uniform(-0.2, 0.2), rng.uniform(-0.15, 0.15)
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    turn = np.array([[cos, -sin + shear * scale], [sin, cos]])
    canvas = int(np.ceil(1.1 * scale * np.hypot(h, w)))
    shift = canvas / 2 - turn @ np.array([(w - 1) / 2, (h - 1) / 2])
    smooth = cv2.warpAffine(ink, np.column_stack([turn, shift]), (canvas, canvas), flags=cv2.INTER_CUBIC)
    alpha = np.clip((smooth - 0.38) / 0.25, 0, 1)  # a crisp stroke
    rows, columns = np.flatnonzero((alpha >= INK).any(axis=1)), np.flatnonzero((alpha >= INK).any(axis=0))
    return alpha[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _place(
    shape: tuple[int, ...], boxes: list[tuple[int, int, int, int]], owner: np.ndarray, rng: np.random.Generator
) -> tuple[int, int, int, int] | None:
    """A position (x, y, w, h) that leaves MIN_VISIBLE of every earlier box visible; None after 20 tries."""
    height, width = owner.shape
    h, w = shape[:2]
    if h > height or w > width:
        return None
    areas = np.array([box[2] * box[3] for box in boxes], np.int64)
    visible = np.bincount(owner[owner >= 0], minlength=len(boxes))
    for _ in range(20):
        x, y = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
        if boxes and rng.random() < NEIGHBOUR_FRACTION:
            near_x, near_y, near_w, near_h = boxes[int(rng.integers(len(boxes)))]
            x = int(np.clip(near_x + rng.integers(-w, near_w + 1), 0, width - w))
            y = int(np.clip(near_y + rng.integers(-h, near_h + 1), 0, height - h))
        covered = owner[y : y + h, x : x + w]
        left = visible - np.bincount(covered[covered >= 0], minlength=len(boxes))
        if (left >= MIN_VISIBLE * areas).all():
            return x, y, w, h
    return None


def _paint(patch: np.ndarray, alpha: np.ndarray, rng: np.random.Generator) -> None:
    """Blend ink of one random colour, light on dark or dark on light, into `patch` (h, w, 3) uint8 in place."""
    hue, saturation = rng.uniform(0, 180), rng.uniform(120, 255)
    light = patch.mean() < 118
    value = rng.uniform(225, 255) if light else rng.uniform(20, 80)
    saturation *= 0.55 if light else 1.0  # keep light inks light in every hue
    colour = cv2.cvtColor(np.array([[[hue, saturation, value]]], np.uint8), cv2.COLOR_HSV2RGB)[0, 0]
    blend = alpha[..., None]
    patch[:] = np.rint(patch * (1 - blend) + colour * blend).astype(np.uint8)
