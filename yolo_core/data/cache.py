"""A cache of decoded images, kept between epochs: in memory, or in a file shared by all processes on the machine."""

import logging
import mmap
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate, chain
from pathlib import Path
from typing import Literal

import numpy as np

from yolo_core import atomic
from yolo_core.locks import exclusive
from yolo_core.progress import Progress, silent

log = logging.getLogger(__name__)

ALIGNMENT = 64  # bytes; each image starts on a cache line
HEADER = 2 * ALIGNMENT  # bytes
SUFFIX = ".pixels"
RESERVE = 1 << 30  # bytes of disk space that are always left free
CHUNK = 16  # images per task of a build thread
NOT_HELD = "images are decoded each time they are needed"

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class CacheSettings:
    """How decoded images are cached."""

    kind: Literal["disk", "ram", "none"] = "ram"
    """In a file in `folder`, in the memory of one trainer, or not at all."""
    limit: int = 1 << 30
    """Maximum bytes, per split in memory, for the whole folder on disk; a split that does not fit is not cached."""
    folder: Path | None = None
    """Folder of the cache files."""
    content: str = ""
    """Digest of the image files; if empty, their sizes and modification times are used instead."""


class Slots:
    """The layout of images of the given shapes (H, W, 3) in one block of bytes, after a header."""

    def __init__(self, shapes: Sequence[Shape]):
        self.shapes = shapes
        sizes = (-(-h * w * c // ALIGNMENT) * ALIGNMENT for h, w, c in shapes)
        *self.starts, self.bytes = accumulate(sizes, initial=HEADER)

    def view(self, block: mmap.mmap, index: int) -> np.ndarray:
        return np.ndarray(self.shapes[index], np.uint8, block, self.starts[index])


class RamCache:
    """Images in anonymous shared memory, filled lazily.

    Loader processes forked after its creation share its pages, so images outlive the processes of one epoch and are
    stored once for any number of workers. Pages that were never written take no memory.
    """

    def __init__(self, shapes: Sequence[Shape]):
        self._slots = Slots(shapes)
        self._block = mmap.mmap(-1, self._slots.bytes)
        self._filled = mmap.mmap(-1, max(len(shapes), 1))

    def get(self, index: int) -> np.ndarray | None:
        """The image, read-only (H, W, 3) uint8, or None if it is not stored yet."""
        if not self._filled[index]:
            return None
        view = self._slots.view(self._block, index)
        view.flags.writeable = False
        return view

    def put(self, index: int, image: np.ndarray) -> None:
        """Store the image. Two writers of one slot write the same bytes, so no lock is needed."""
        self._slots.view(self._block, index)[:] = image
        self._filled[index] = 1  # after the pixels: a reader sees all of them or none


class DiskCache:
    """Images in a memory-mapped file: the system keeps one copy of its pages for all processes, and drops them when
    memory runs low."""

    def __init__(self, path: Path, key: str, slots: Slots):
        """Raises FileNotFoundError, and ValueError for an incomplete file."""
        self._slots = slots
        with path.open("rb") as file:
            found = os.fstat(file.fileno()).st_size
            if found != slots.bytes:
                raise ValueError(f"has {found} bytes instead of {slots.bytes}")
            self._block = mmap.mmap(file.fileno(), slots.bytes, prot=mmap.PROT_READ)
        if self._block[:HEADER] != _header(key):
            raise ValueError("has no valid header")

    def get(self, index: int) -> np.ndarray:
        """The image, read-only (H, W, 3) uint8."""
        return self._slots.view(self._block, index)

    def put(self, index: int, image: np.ndarray) -> None:
        """No-op: every image is in the file already."""


ImageCache = RamCache | DiskCache


def ram_cache(shapes: Sequence[Shape], limit: int) -> RamCache | None:
    """An in-memory cache; None, with a warning, if it would exceed `limit` bytes."""
    needed = Slots(shapes).bytes
    if needed <= limit:
        return RamCache(shapes)
    log.warning("%s of decoded images exceed the limit of %s: %s", _gib(needed), _gib(limit), NOT_HELD)
    return None


def disk_cache(
    folder: Path,
    key: str,
    shapes: Sequence[Shape],
    decode: Callable[[int], np.ndarray],
    limit: int,
    progress: Progress = silent,
) -> DiskCache | None:
    """The cache for this key in `folder`, built on all cores if it does not exist.

    key: hex digest of everything that determines the pixels. decode(index): an image of the given shape.
    The file is written atomically. One process builds it while others wait; leftovers of a killed build are removed,
    and a damaged file is replaced. Returns None, with a warning, when the folder's files would exceed `limit` bytes or
    the disk is full: nothing is evicted. Raises whatever `decode` raises.
    """
    path, slots = folder / f"{key[:32]}{SUFFIX}", Slots(shapes)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if whole := _opened(path, key, slots):
            return whole
        with exclusive(folder / "lock"):
            if whole := _opened(path, key, slots):  # built while this process waited
                return whole
            for leftover in folder.glob(f".*{SUFFIX}"):
                leftover.unlink()
            path.unlink(missing_ok=True)
            if reason := _refusal(folder, slots.bytes, limit):
                log.warning("%s: %s: %s", folder, reason, NOT_HELD)
                return None
            _build(path, key, slots, decode, progress)
        return DiskCache(path, key, slots)
    except OSError as error:  # the disk is full after all, or not writable
        log.warning("%s: cannot hold decoded images (%s): %s", folder, error.strerror or error, NOT_HELD)
        return None


def _opened(path: Path, key: str, slots: Slots) -> DiskCache | None:
    """The cache, or None if there is no complete one."""
    try:
        return DiskCache(path, key, slots)
    except FileNotFoundError:
        return None
    except ValueError as damage:
        log.warning("%s: %s; rebuilding it", path, damage)
        return None


def _refusal(folder: Path, needed: int, limit: int) -> str | None:
    """Why a file of `needed` bytes cannot be built; None if it can."""
    held = sum(path.stat().st_size for path in folder.glob(f"*{SUFFIX}"))
    if held + needed > limit:
        others = f" plus {_gib(held)} of earlier ones, which may be deleted," if held else ""
        return f"{_gib(needed)} of decoded images{others} exceed the limit of {_gib(limit)}"
    if needed + RESERVE > (free := shutil.disk_usage(folder).free):
        return f"{_gib(needed)} of decoded images do not fit in the {_gib(free)} free on the disk"
    return None


def _build(path: Path, key: str, slots: Slots, decode: Callable[[int], np.ndarray], progress: Progress) -> None:
    with atomic.replaced(path) as temporary, temporary.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, slots.bytes)  # a full disk is an error here, not a crash on a later write
        block = mmap.mmap(file.fileno(), slots.bytes)
        block[:HEADER] = _header(key)

        def fill(indices: range) -> range:
            for index in indices:
                slots.view(block, index)[:] = decode(index)
            return indices

        count = len(slots.shapes)
        chunks = [range(first, min(first + CHUNK, count)) for first in range(0, count, CHUNK)]
        pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)), "decode")
        try:
            for _ in progress(chain.from_iterable(pool.map(fill, chunks)), "decode images", count):
                pass
        finally:
            pool.shutdown(cancel_futures=True)
        block.flush()


def _header(key: str) -> bytes:
    return f"decoded images {key}\n".encode().ljust(HEADER, b"\0")


def _gib(count: int) -> str:
    return f"{count / (1 << 30):.3g} GiB"
