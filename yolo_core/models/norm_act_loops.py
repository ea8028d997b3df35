"""Compiled loops for fused batch normalisation and activation; see `norm_act.py` for what they compute.

A map is a flat array ordered by row, then channel, where a row is one cell of one image; float32, or bfloat16 as uint16
bits. It is split into blocks of rows. Sums are computed per block, then over the blocks in order in float64, so that
neither value nor precision depends on the number of threads.
No fastmath: the compiler could then fuse multiply-adds, and it chooses differently in the process that compiles than in
those that load the code from the cache. With every operation rounded, all processes produce the same bits.
Indices are unsigned: for signed ones numba checks for negative indices, which prevents vectorisation.

Shapes: N rows, C channels, K blocks of `rows` rows; per-channel arrays are (C,) float32.
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

LINEAR, SILU, MISH = 0, 1, 2  # activations; LINEAR multiplies by `slope` below 0
MOMENTS, FORWARD, GRADIENT_SUMS, BACKWARD = range(4)  # operations on a block

# Fields of a job. Arrays are passed as addresses: x and y are maps, g and dx gradient maps, with the rows of g `stride`
# elements apart; sums and others are (K, C); the rest are per channel.
_INTEGERS = ("work", "next", "blocks", "rows", "count", "channels", "stride", "kind")
_ADDRESSES = ("x", "y", "g", "dx", "sums", "others", "scale", "shift", "mean", "per_x", "constant")
JOB = np.dtype([*((name, np.int64) for name in (*_INTEGERS, *_ADDRESSES)), ("slope", np.float64)])

inlined = numba.njit(inline="always")
_ONE, _TWO, _FOUR = np.float32(1), np.float32(2), np.float32(4)
_MOST = np.float32(20)  # from here on mish(x) == x exactly


def run(job: np.ndarray, element: type) -> None:
    """Run `job`, a (1,) array of `JOB`, on PyTorch's own threads; element: np.float32 or np.uint16.

    A separate pool would compete with PyTorch's threads, which keep spinning for milliseconds after each operation.
    """
    job["next"] = 0
    task, parallel = _task(element), _gomp_parallel()
    if parallel is None or torch.get_num_threads() == 1:
        task.ctypes(job.ctypes.data)
    else:
        parallel(task.address, job.ctypes.data, torch.get_num_threads(), 0)


@cache
def _gomp_parallel():
    """Runs a function on the threads of the OpenMP library loaded by PyTorch; None if there is none.

    GNU's entry point for `#pragma omp parallel`, which the LLVM and Intel libraries also provide.
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
    """What each thread runs: blocks of the job until none are left."""

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
    """The next unclaimed block: atomically increments `next` of the job."""
    index = _INTEGERS.index("next")  # they come first; every field has 8 bytes

    def code(context, builder, signature, arguments):
        words = builder.bitcast(arguments[0], ir.IntType(64).as_pointer())
        counter = builder.gep(words, [ir.Constant(ir.IntType(64), index)])
        return builder.atomic_rmw("add", counter, ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(pointer), code


@compiled
def _moments(x, begin, end, channels, total, square):
    """Sums of x and of its squared differences from the block's mean."""
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
    """Mean and variance, (C,) float64, over `count` rows, from the sums and others that MOMENTS wrote."""
    mean, spread = _over_blocks(sums) / count, _over_blocks(squares)
    for block in range(len(sums)):
        here = min(rows, count - block * rows)
        for c in range(len(mean)):
            spread[c] += here * (sums[block, c] / here - mean[c]) ** 2
    return mean, spread / count


@compiled
def gradient_sums(sums, products):
    """Both sums, (C,) float64, over all rows, from the sums and others that GRADIENT_SUMS wrote."""
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
    """e^x for -87 <= x <= 87, within 2 ulp: 2^k times a polynomial in the remainder (Cephes, expf)."""
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
    """A float32 value in the dtype of the map `target`."""


@overload(_write, inline="always")
def _(value, target):
    if isinstance(target.dtype, types.Float):
        return lambda value, target: value
    return lambda value, target: _bfloat16(value)


@inlined
def _bfloat16(value):
    """Round to the nearest bfloat16, ties to even. All steps are 32-bit: 64-bit ones prevent vectorisation."""
    bits = np.float32(value).view(np.int32)
    odd = np.int32(np.int32(bits >> np.int32(16)) & np.int32(1))
    return np.uint16(np.int32(np.int32(bits + np.int32(np.int32(0x7FFF) + odd)) >> np.int32(16)))
