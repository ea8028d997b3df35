"""Validation images that show nearly the same as a training image: recompressed or resized copies, frames of a video.

They make AP look better than it is. Equal files are found by `prepare`; here images are compared by a perceptual hash,
which the library imagehash computes.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import imagehash
import numpy as np
from PIL import Image

from yolo_core.data.coco import DetectionDataset
from yolo_core.progress import Progress

HASH_SIDE = 16  # bits of a hash: its square
CLOSE = 40  # bits that may differ: copies cropped by 2 % a side differ in up to 50, different photographs in 90 or more
MOST_TRAIN, MOST_VAL = 20_000, 2_000  # images compared; of more, some spaced evenly
DECODED_SIDE = 256  # px, where the format can be decoded smaller
ROWS = 64  # validation images compared at a time


@dataclass(frozen=True)
class Pair:
    """Two images that look nearly the same."""

    val: Path
    train: Path
    bits: int
    """Bits in which their hashes differ, of 256."""


def find(train: DetectionDataset, val: DetectionDataset, progress: Progress) -> list[Pair]:
    """The nearest training image of each validation image that has one within `CLOSE` bits."""
    trained, checked = _sampled(train, MOST_TRAIN), _sampled(val, MOST_VAL)
    known, asked = _hashes(trained, progress), _hashes(checked, progress)
    pairs = []
    for start in range(0, len(asked), ROWS):
        rows = asked[start : start + ROWS]
        bits = np.bitwise_count(rows[:, None] ^ known[None]).sum(2, dtype=np.int64)
        for row, nearest in enumerate(bits.argmin(1)):
            if bits[row, nearest] <= CLOSE:
                pairs.append(Pair(checked[start + row], trained[nearest], int(bits[row, nearest])))
    return pairs


def _sampled(split: DetectionDataset, most: int) -> list[Path]:
    """At most that many of its files, evenly spaced."""
    count = min(len(split), most)
    return [split.images[place * len(split) // count].path for place in range(count)]


def _hashes(paths: Sequence[Path], progress: Progress) -> np.ndarray:
    """(images, words) uint64."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(progress(pool.map(_hash, paths), "compare images", total=len(paths)))
    return np.array(found, np.uint64).reshape(len(paths), -1)


def _hash(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        image.draft("L", (DECODED_SIDE, DECODED_SIDE))
        bits = imagehash.phash(image, hash_size=HASH_SIDE).hash
    return np.packbits(bits).view(np.uint64)
