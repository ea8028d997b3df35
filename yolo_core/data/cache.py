"""Decoded images held in memory, shared by the loader threads and forked loader processes of one trainer."""

import mmap
from collections.abc import Sequence

import numpy as np

ALIGNMENT = 64  # bytes; each image starts on a cache line


class RamCache:
    """A fixed arena with one slot per image, filled lazily.

    The arena is anonymous shared memory: a loader process forked after its creation reads and fills the same pages,
    so images outlive the processes of one epoch and are held once whatever the number of workers. Pages that were
    never written take no memory. Images whose slot would end beyond `limit` bytes have none.
    """

    def __init__(self, shapes: Sequence[tuple[int, int, int]], limit: int):
        """`shapes`: (H, W, 3) of every image; `limit`: most bytes to hold."""
        self._shapes = shapes
        sizes = [-(-h * w * c // ALIGNMENT) * ALIGNMENT for h, w, c in shapes]
        ends = np.cumsum(sizes, dtype=np.int64)
        self._slots = int(np.searchsorted(ends, limit, side="right"))
        self._starts = np.concatenate([[0], ends])
        self.capacity = int(self._starts[self._slots])
        self._pixels = np.frombuffer(mmap.mmap(-1, max(self.capacity, 1)), np.uint8)
        self._filled = np.frombuffer(mmap.mmap(-1, max(self._slots, 1)), np.uint8)

    def get(self, index: int) -> np.ndarray | None:
        """The image, read-only (H, W, 3) uint8, or None when it is not held."""
        if index >= self._slots or not self._filled[index]:
            return None
        view = self._slot(index)
        view.flags.writeable = False
        return view

    def put(self, index: int, image: np.ndarray) -> None:
        """Hold the image if it has a slot. Two writers of one slot write the same bytes, so neither needs a lock."""
        if index < self._slots:
            self._slot(index)[:] = image
            self._filled[index] = 1  # after the pixels: a reader sees all of them or none

    def _slot(self, index: int) -> np.ndarray:
        shape = self._shapes[index]
        start = self._starts[index]
        return self._pixels[start : start + shape[0] * shape[1] * shape[2]].reshape(shape)
