"""Scratch buffers per thread: allocating megabytes of fresh pages costs more than the work done in them."""

import threading

import numpy as np


class _Buffers(threading.local):
    def __init__(self) -> None:
        self.by_name: dict[str, np.ndarray] = {}


_buffers = _Buffers()


def scratch(name: str, height: int, width: int, channels: int) -> np.ndarray:
    """(height, width, channels) uint8 with arbitrary content, valid until this thread asks for `name` again."""
    size = height * width * channels
    buffer = _buffers.by_name.get(name)
    if buffer is None or buffer.size < size:
        buffer = _buffers.by_name[name] = np.empty(size, np.uint8)
    return buffer[:size].reshape(height, width, channels)
