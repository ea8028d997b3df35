"""The compiled loops of batch normalisation with its activation; `norm_act.py` says what they compute.

A map is a flat array in the order row, channel, a row being one cell of one image: float32, or bfloat16 as its bits in
uint16. It is cut into blocks of rows. Sums are taken over blocks and then over the blocks in order, in float64, so
that neither their value nor their precision depends on the number of threads.
No fast mathematics: which products and sums round once would be the compiler's choice, and it chooses otherwise in the
process that compiles than in those that find the code in the cache. Every operation rounds, so all give the same bits.
Indices are unsigned: for signed ones numba asks whether they count from the end, and the loop is not vectorised.

Shapes: N rows, C channels, K blocks of `rows` rows; arrays per channel are (C,) float32.
"""

import ctypes
from functools import cache
from typing import Any

import numba
import numpy as np
import torch
from llvmlite import ir
from numba import carray, types  # pyright: ignore[reportPrivateImportUsage]
from numba.extending import intrinsic, overload

from yolo_core.compiled import compiled, compiled_callback

LINEAR, SILU, MISH = 0, 1, 2  # activations; LINEAR is the identity above 0 and times `slope` below
MOMENTS, FORWARD, GRADIENT_SUMS, BACKWARD = range(4)  # what a team is asked to do with each block

# What a team is told. Arrays are given as addresses: x, y, g and dx are maps, the latter two of gradients, the rows of
# g `stride` elements apart; sums and others (K, C); the rest per channel.
_INTEGERS = ("work", "next", "blocks", "rows", "count", "channels", "stride", "kind")
_ADDRESSES = ("x", "y", "g", "dx", "sums", "others", "scale", "shift", "mean", "per_x", "constant")
JOB: Any = np.dtype([*((name, np.int64) for name in (*_INTEGERS, *_ADDRESSES)), ("slope", np.float64)])

inlined = numba.njit(inline="always")
_ONE, _TWO, _FOUR = np.float32(1), np.float32(2), np.float32(4)
_MOST = np.float32(20)  # from here on mish(x) is x, to the last bit


def run(job: np.ndarray, element: type) -> None:
    """Have PyTorch's own threads do `job`, (1,) of `JOB`, on maps of `element`: np.float32 or np.uint16.

    Threads of another pool would compete with PyTorch's, which go on spinning for milliseconds after each operation.
    """
    job["next"] = 0
    task, team = _task(element), _team()
    if team is None or torch.get_num_threads() == 1:
        task.ctypes(job.ctypes.data)
    else:
        team(task.address, job.ctypes.data, torch.get_num_threads(), 0)


@cache
def _team():
    """Run a function on the threads of the OpenMP library that PyTorch has loaded; None where there is none.

    This is the call that compilers make of `#pragma omp parallel`, by GNU's convention; LLVM and Intel have it too.
    """
    try:
        function = ctypes.CDLL(None).GOMP_parallel
    except (AttributeError, TypeError, OSError):
        return None
    function.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
    function.restype = None
    return function


@cache
def _task(element):
    """What each thread of a team runs: blocks of the job until all are taken."""

    def task(pointer):
        job = carray(pointer, 1)[0]
        rows, count, channels, stride = job.rows, job.count, job.channels, job.stride
        kind, slope = job.kind, np.float32(job.slope)
        x = carray(_pointer(job.x), count * channels, element)  # pyright: ignore[reportCallIssue]
        y = carray(_pointer(job.y), count * channels, element)
        g = carray(_pointer(job.g), (count - 1) * stride + channels, element)
        dx = carray(_pointer(job.dx), count * channels, element)
        sums = carray(_pointer(job.sums), (job.blocks, channels), np.float32)
        others = carray(_pointer(job.others), (job.blocks, channels), np.float32)
        scale = carray(_pointer(job.scale), channels, np.float32)
        shift = carray(_pointer(job.shift), channels, np.float32)
        mean = carray(_pointer(job.mean), channels, np.float32)
        per_x = carray(_pointer(job.per_x), channels, np.float32)
        constant = carray(_pointer(job.constant), channels, np.float32)
        while True:
            block = _ticket(pointer)
            if block >= job.blocks:
                return
            begin, end = block * rows, min((block + 1) * rows, count)
            if job.work == MOMENTS:
                _moments(x, begin, end, channels, sums[block], others[block])
            elif job.work == FORWARD:
                _forward(x, begin, end, channels, scale, shift, kind, slope, y)
            elif job.work == GRADIENT_SUMS:
                _sums(x, begin, end, channels, scale, shift, kind, slope, g, stride, mean, sums[block], others[block])
            else:
                _backward(x, begin, end, channels, scale, shift, kind, slope, g, stride, per_x, constant, dx)

    return compiled_callback(types.void(types.CPointer(numba.from_dtype(JOB))))(task)


@intrinsic
def _pointer(typing, address):
    """An address as a pointer."""

    def code(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.voidptr(address), code


@intrinsic
def _ticket(typing, pointer):
    """The number of the next block that no thread has taken: `next` of the job, counted up atomically."""
    place = JOB.names.index("next")  # every field is of 8 bytes

    def code(context, builder, signature, arguments):
        words = builder.bitcast(arguments[0], ir.IntType(64).as_pointer())
        counter = builder.gep(words, [ir.Constant(ir.IntType(64), place)])
        return builder.atomic_rmw("add", counter, ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(pointer), code


@compiled
def _moments(x, begin, end, channels, total, square):
    """Sums of x, and of its squared differences to the block's mean."""
    columns = np.uint64(channels)
    total[:] = 0
    for row in range(begin, end):
        here = np.uint64(row * channels)
        for c in range(columns):
            total[c] += _read(x[here + c])
    share = _ONE / np.float32(end - begin)
    square[:] = 0
    for row in range(begin, end):
        here = np.uint64(row * channels)
        for c in range(columns):
            difference = _read(x[here + c]) - total[c] * share
            square[c] += difference * difference


@compiled
def _forward(x, begin, end, channels, scale, shift, kind, slope, y):
    """y = activation(scale x + shift)."""
    columns = np.uint64(channels)
    for row in range(begin, end):
        here = np.uint64(row * channels)
        for c in range(columns):
            value = _activated(_read(x[here + c]) * scale[c] + shift[c], kind, slope)
            y[here + c] = _write(value, y)


@compiled
def _sums(x, begin, end, channels, scale, shift, kind, slope, g, stride, mean, total, product):
    """Sums of the gradient of scale x + shift, and of its product with x - mean."""
    columns = np.uint64(channels)
    total[:] = 0
    product[:] = 0
    for row in range(begin, end):
        here, there = np.uint64(row * channels), np.uint64(row * stride)
        for c in range(columns):
            value = _read(x[here + c])
            inner = _read(g[there + c]) * _derivative(value * scale[c] + shift[c], kind, slope)
            total[c] += inner
            product[c] += inner * (value - mean[c])


@compiled
def _backward(x, begin, end, channels, scale, shift, kind, slope, g, stride, per_x, constant, dx):
    """dx = scale (gradient of scale x + shift) + per_x x + constant."""
    columns = np.uint64(channels)
    for row in range(begin, end):
        here, there = np.uint64(row * channels), np.uint64(row * stride)
        for c in range(columns):
            value = _read(x[here + c])
            inner = _read(g[there + c]) * _derivative(value * scale[c] + shift[c], kind, slope)
            dx[here + c] = _write(scale[c] * inner + per_x[c] * value + constant[c], dx)


@compiled
def moments(sums, squares, rows, count):
    """Mean and variance (C,) float64 over `count` rows, from what MOMENTS left in sums and others."""
    mean, spread = _over_blocks(sums) / count, _over_blocks(squares)
    for block in range(len(sums)):
        here = min(rows, count - block * rows)
        for c in range(len(mean)):
            spread[c] += here * (sums[block, c] / here - mean[c]) ** 2
    return mean, spread / count


@compiled
def gradient_sums(sums, products):
    """Both sums (C,) float64 over all rows, from what GRADIENT_SUMS left in sums and others."""
    return _over_blocks(sums), _over_blocks(products)


@inlined
def _over_blocks(parts):
    """(K, C) float32 -> (C,) float64."""
    total = np.zeros(parts.shape[1])
    for block in range(len(parts)):
        for c in range(parts.shape[1]):
            total[c] += parts[block, c]
    return total


@inlined
def _activated(z, kind, slope):
    if kind == MISH:  # tanh(softplus(z)) = n / (n + 2) with n = e^z (e^z + 2)
        e = _exp(min(z, _MOST))
        n = e * (e + _TWO)
        return z * (n / (n + _TWO))
    if kind == SILU:
        return z / (_ONE + _exp(-z))
    return max(z, slope * z)


@inlined
def _derivative(z, kind, slope):
    if kind == MISH:
        e = _exp(min(z, _MOST))
        n = e * (e + _TWO)
        inverse = _ONE / (n + _TWO)
        return (n * (n + _TWO) + _FOUR * z * e * (e + _ONE)) * inverse * inverse
    if kind == SILU:
        s = _ONE / (_ONE + _exp(-z))
        return s * (_ONE + z * (_ONE - s))
    return _ONE if z > 0 else slope


@inlined
def _exp(x):
    """e^x for -87 <= x <= 87, within 2 units in the last place: 2^k times a polynomial in the rest (Cephes, expf)."""
    x = min(max(x, np.float32(-87)), np.float32(87))
    k = np.floor(x * np.float32(1.44269504) + np.float32(0.5))
    r = x - k * np.float32(0.693359375) + k * np.float32(2.12194440e-4)
    p = np.float32(1.9875691500e-4) * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    p = p * r * r + r + _ONE
    return p * np.int32((np.int32(k) + 127) << 23).view(np.float32)


def _read(value) -> Any:
    """An element of a map as float32."""


@overload(_read, inline="always")
def _(value):
    if isinstance(value, types.Float):
        return lambda value: value
    return lambda value: np.uint32(np.uint32(value) << np.uint32(16)).view(np.float32)


def _write(value, target) -> Any:
    """A float32 value as an element of the map `target`."""


@overload(_write, inline="always")
def _(value, target):
    if isinstance(target.dtype, types.Float):
        return lambda value, target: value
    return lambda value, target: _bfloat16(value)


@inlined
def _bfloat16(value):
    """The nearest bfloat16, ties to even. Every step stays in 32 bits: in 64 the loop is not vectorised."""
    bits = np.float32(value).view(np.int32)
    odd = np.int32(np.int32(bits >> np.int32(16)) & np.int32(1))
    return np.uint16(np.int32(np.int32(bits + np.int32(np.int32(0x7FFF) + odd)) >> np.int32(16)))
