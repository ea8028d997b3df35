"""The labels of a sample from those of its tiles, as a compiled loop."""

import numpy as np

from yolo_core.compiled import compiled

# A box is kept if what remains of it in the output is worth learning from.
MIN_SIDE_PX = 2.0
MIN_AREA_LEFT = 0.1  # share of its area before clipping to the output
MAX_ASPECT = 20.0


@compiled
def place_boxes(rows, counts, tiles, plane, scale, shift_x, shift_y, size, flip):
    """Labels of all tiles in the output: (N, 5) float32 class index, cx, cy, w, h px; tiny and thin ones are dropped.

    rows: (M, 5) float32 class index, x1, y1, x2, y2 in px of the image, concatenated by tile, `counts` rows each.
    tiles: (K, 4) float64: plane px per image px in x and y, then x and y of the tile on the plane.
    plane, scale, shift_x, shift_y, size, flip: see `mosaic`.
    """
    labels, kept, row = np.empty((len(rows), 5), np.float32), 0, 0
    for tile in range(len(counts)):
        ratio_x, ratio_y, x, y = tiles[tile]
        for _ in range(counts[tile]):
            _, x1, y1, x2, y2 = rows[row]
            x1, x2, width = _cut(x1 * ratio_x + x, x2 * ratio_x + x, plane, scale, shift_x, size)
            y1, y2, height = _cut(y1 * ratio_y + y, y2 * ratio_y + y, plane, scale, shift_y, size)
            w, h = x2 - x1, y2 - y1
            large = w > MIN_SIDE_PX and h > MIN_SIDE_PX and w * h > MIN_AREA_LEFT * width * height
            if large and max(w, h) < MAX_ASPECT * min(w, h):
                cx = (x1 + x2) / 2
                labels[kept, 0] = rows[row, 0]
                labels[kept, 1], labels[kept, 2] = size - cx if flip else cx, (y1 + y2) / 2
                labels[kept, 3], labels[kept, 4] = w, h
                kept += 1
            row += 1
    return labels[:kept]


@compiled
def _cut(first, last, plane, scale, shift, size):
    """Two edges in plane px, clipped to the plane, mapped to the output, clipped to it; the side before that clip."""
    first = min(max(first, 0.0), plane) * scale + shift
    last = min(max(last, 0.0), plane) * scale + shift
    return min(max(first, 0.0), size), min(max(last, 0.0), size), last - first
