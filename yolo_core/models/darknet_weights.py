"""Darknet's `.weights` files: a header, then float32 values layer by layer, in the order of the configuration."""

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from yolo_core.errors import UserError
from yolo_core.models.blocks import ConvBnAct

EPS = 1e-5  # Darknet's BatchNorm


def read(path: Path, layers: Sequence[tuple[str, nn.Module]]) -> dict[str, Tensor]:
    """State-dict entries, under our names, of `layers`: the file's convolutions, in its order.

    A layer is a `ConvBnAct` (file: beta, gamma, mean, variance, weight) or a convolution with bias (bias, weight).
    Raises UserError, naming the layer, when the file is missing or is shorter or longer than these layers.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    numbers = np.frombuffer(data[_header_bytes(path, data) :], "<f4")
    found: dict[str, Tensor] = {}
    start = 0
    for layer, module in layers:
        for name, shape in _entries(layer, module):
            count = int(np.prod(shape))
            if start + count > len(numbers):
                raise UserError(f"{path}: too short: ends within layer {layer}")
            found[name] = torch.from_numpy(numbers[start : start + count].astype(np.float32)).view(shape)
            start += count
    if start < len(numbers):
        raise UserError(f"{path}: too long: {len(numbers) - start} numbers after the last layer, {layers[-1][0]}")
    return found


def _header_bytes(path: Path, data: bytes) -> int:
    """Header size: version (3 int32), then images seen in training (int32 before version 0.2, int64 since)."""
    if len(data) < 12:
        raise UserError(f"{path}: too short for a Darknet header")
    major, minor, _ = struct.unpack("<3i", data[:12])
    if not (0 <= major < 1000 and 0 <= minor < 1000):
        raise UserError(f"{path}: not a Darknet weights file (version {major}.{minor})")
    size = 12 + (8 if major * 10 + minor >= 2 else 4)
    if len(data) < size or (len(data) - size) % 4:
        raise UserError(f"{path}: {len(data)} bytes are not a header and whole numbers; is it cut short?")
    return size


def _entries(layer: str, module: nn.Module) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of a layer's tensors, in the file's order."""
    if isinstance(module, ConvBnAct):
        channels = (module.conv.out_channels,)
        for name in ("bias", "weight", "running_mean", "running_var"):
            yield f"{layer}.bn.{name}", channels
        yield f"{layer}.conv.weight", tuple(module.conv.weight.shape)
    else:
        assert isinstance(module, nn.Conv2d)
        yield f"{layer}.bias", (module.out_channels,)
        yield f"{layer}.weight", tuple(module.weight.shape)
