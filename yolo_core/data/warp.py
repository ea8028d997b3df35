"""Drawing a tile into the canvas with bilinear interpolation, in compiled loops.

The map from canvas to tile only scales, shifts and mirrors, so each row is interpolated in two steps: between two
rows of the tile, which are contiguous in memory, then between neighbouring pixels of the result.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from yolo_core.compiled import compiled

# Weights are integers that add up to these. Rows are blended in 16 bits, 8 of them the byte's, and the result is
# lowered by half the range to fit a signed integer; pixels are blended in 32 bits.
ROWS, PIXELS = 1 << 8, 1 << 14
LOWERED = 1 << 15
SPARE = 5  # values after a row: its last pixel repeated, and what a read of eight values touches beyond it

_I16, _I32 = ir.IntType(16), ir.IntType(32)
_SUMS = ir.VectorType(_I32, 4)


@compiled
def draw(canvas, image, x0, x1, y0, y1, ax, bx, ay, by):
    """Fill canvas pixels x0 <= x < x1, y0 <= y < y1 from the image at (ax * x + bx, ay * y + by), edges repeated.

    canvas: (S, S) uint32, red in the lowest byte, then green, blue and 0. image: RGB (H, W, 3) uint8, contiguous.
    The rectangle holds at least one pixel.
    """
    height, width = image.shape[:2]
    columns, weights = np.empty(x1 - x0, np.int64), np.empty(x1 - x0, np.uint32)
    for x in range(x1 - x0):
        columns[x], weight = _place(ax * (x0 + x) + bx, width, PIXELS)
        weights[x] = (PIXELS - weight) | weight << 16
    left, right = min(columns[0], columns[-1]), min(max(columns[0], columns[-1]) + 2, width)
    columns = 3 * (columns - left)
    blended = np.zeros(3 * (right - left) + SPARE, np.int16)
    rows = image.reshape(height, 3 * width)[:, 3 * left : 3 * right]
    for y in range(y0, y1):
        above, weight = _place(ay * y + by, height, ROWS)
        _blend_rows(blended, rows[above], rows[min(above + 1, height - 1)], np.int16(weight))
        _blend_pixels(canvas[y, x0:x1], blended, columns, weights)


@compiled
def _place(position, length, whole):
    """The pixel at or before a position, and the weight of the next one, out of `whole`."""
    first = int(np.floor(position))
    if first < 0:
        return 0, 0
    if first >= length - 1:
        return length - 1, 0
    return first, int((position - first) * whole + 0.5)


@compiled
def _blend_rows(blended, above, below, weight):
    count = len(above)
    for i in range(count):
        blended[i] = _blend(above[i], below[i], np.int16(ROWS - weight), weight)  # pyright: ignore[reportCallIssue]
    for i in range(3):
        blended[count + i] = blended[count - 3 + i]


@compiled
def _blend_pixels(row, blended, columns, weights):
    for x in range(len(row)):
        row[x] = _pixel(blended, columns[x], weights[x])  # pyright: ignore[reportCallIssue]


@intrinsic
def _blend(_, a, b, weight_a, weight_b):
    """a * weight_a + b * weight_b - LOWERED in 16 bits: numba would widen it to 64, which is several times slower."""

    def code(context, builder, signature, args):
        a, b, weight_a, weight_b = args
        sums = builder.add(builder.mul(builder.zext(a, _I16), weight_a), builder.mul(builder.zext(b, _I16), weight_b))
        return builder.sub(sums, _I16(LOWERED))

    return types.int16(types.uint8, types.uint8, types.int16, types.int16), code


@intrinsic
def _pixel(_, blended, first, weights):
    """The blend of the pixel at blended[first] and the next one, in the canvas's format; `weights`: two of 16 bits.

    The three channels are computed in parallel.
    """

    def code(context, builder, signature, args):
        array = context.make_array(signature.args[0])(context, builder, args[0])
        address = builder.bitcast(builder.gep(array.data, [args[1]]), ir.VectorType(_I16, 8).as_pointer())
        both = builder.load(address, align=2)
        zeros = ir.Constant(both.type, [0] * 8)
        pairs = builder.shuffle_vector(both, zeros, _lanes([0, 3, 1, 4, 2, 5, 8, 9]))
        one = builder.insert_element(ir.Constant(_SUMS, ir.Undefined), args[2], _I32(0))
        factors = builder.bitcast(builder.shuffle_vector(one, one, _lanes([0] * 4)), both.type)
        sums = builder.add(_products(builder, pairs, factors, 0), _products(builder, pairs, factors, 1))
        raised = builder.add(sums, ir.Constant(_SUMS, [LOWERED * PIXELS + ROWS * PIXELS // 2] * 4))
        bytes_ = builder.lshr(raised, ir.Constant(_SUMS, [(ROWS * PIXELS).bit_length() - 1] * 4))
        return builder.bitcast(builder.trunc(bytes_, ir.VectorType(ir.IntType(8), 4)), _I32)

    return types.uint32(blended, types.int64, types.uint32), code


def _products(builder, pairs, factors, which):
    """Products of the first or second values of each pair, in 32 bits."""
    lanes = _lanes(range(which, 8, 2))
    a, b = (builder.sext(builder.shuffle_vector(v, v, lanes), _SUMS) for v in (pairs, factors))
    return builder.mul(a, b)


def _lanes(numbers):
    return ir.Constant(ir.VectorType(_I32, len(numbers)), list(numbers))
