"""Colour jitter in HSV as a compiled loop: hue is rotated, saturation and value are scaled."""

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from yolo_core.compiled import compiled
from yolo_core.data.image import FILL

F = np.float32  # a single Python number would promote the whole row to 64 bits


@compiled
def jitter(out, canvas, x0, x1, y0, y1, hue, saturation, value):
    """Multiply hue, saturation and value by their gains; hue wraps around, the others are clipped to 0..255.

    out: planes (3, S, S) uint8. canvas: (S, S) uint32, red in the lowest byte, then green, blue and 0; it is
    FILL except at pixels x0 <= x < x1, y0 <= y < y1.

    The arithmetic is that of OpenCV's 8-bit HSV with lookup tables in between, rounding included: to nearest when
    converting to HSV, down in the tables and when converting back. Hue is modulo 180; the gain `hue` is at most 2.
    """
    hue, saturation, value = F(hue), F(saturation), F(value)
    grey = np.uint8(min(FILL * value, F(255)))
    if x0 >= x1 or y0 >= y1:
        y0, y1 = len(canvas), len(canvas)
    out[:, :y0], out[:, y1:] = grey, grey
    for y in range(y0, y1):
        out[:, y, :x0], out[:, y, x1:] = grey, grey
        red, green, blue = out[0, y, x0:x1], out[1, y, x0:x1], out[2, y, x0:x1]
        _jitter_row(red, green, blue, canvas[y, x0:x1], hue, saturation, value)


@compiled
def _jitter_row(red, green, blue, row, hue, saturation, value):
    # Branch-free, so that the compiler vectorises it.
    for x in range(len(row)):
        r, g, b = _byte(row[x], 0), _byte(row[x], 1), _byte(row[x], 2)  # pyright: ignore[reportCallIssue]
        high, low = _larger(_larger(r, g), b), _smaller(_smaller(r, g), b)
        spread = high - low
        s = np.floor(F(255) * spread / _larger(high, F(1)) + F(0.5))
        h = (r - g) + F(4) * spread
        h = (b - r) + F(2) * spread if high == g else h
        h = g - b if high == r else h
        h = np.floor(h * (F(30) / _larger(spread, F(1))) + F(0.5))
        h = h + F(180) if h < F(0) else h

        h = np.floor(h * hue)
        h = h - F(180) if h >= F(180) else h
        s = np.floor(_smaller(s * saturation, F(255)))
        v = np.floor(_smaller(high * value, F(255)))

        # How far each channel is below v: 0 to v * s, by the distance of the hue from its third of the circle.
        sixth = h * F(1 / 30)
        most = v * s * F(1 / 255)
        red[x] = np.int32(v - most * _share(F(2) - abs(sixth - F(3))))
        green[x] = np.int32(v - most * _share(abs(sixth - F(2)) - F(1)))
        blue[x] = np.int32(v - most * _share(abs(sixth - F(4)) - F(1)))


@intrinsic
def _byte(_, pixel, index):
    """Byte `index` of a pixel as float32; numba's own conversion would go through 64 bits."""

    def code(context, builder, signature, args):
        shifted = builder.lshr(args[0], builder.mul(args[1], args[1].type(8)))
        return builder.uitofp(builder.and_(shifted, args[1].type(255)), ir.FloatType())

    return types.float32(types.uint32, types.uint32), code


@compiled
def _larger(a, b):
    return a if a > b else b  # `max` handles NaN, which costs a branch


@compiled
def _smaller(a, b):
    return a if a < b else b


@compiled
def _share(number):
    """`number` clipped to 0..1."""
    return _smaller(_larger(number, F(0)), F(1))
