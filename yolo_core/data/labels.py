"""Boxes of the tiles in a sample, as a compiled loop."""

import numpy as np

from yolo_core.compiled import compiled

# A box stays when what is left of it in the output is worth learning from.
MIN_SIDE_PX = 2.0
MIN_AREA_LEFT = 0.1  # of its area before it was cut by the output's border
MAX_ASPECT = 20.0


@compiled
def place_boxes(rows, counts, tiles, plane, scale, shift_x, shift_y, size, flip):
    """Labels of all tiles in the output: (N, 5) float32 class index, cx, cy, w, h px; hopeless ones left out.

    rows: (M, 5) float32 class index, x1, y1, x2, y2 in px of the image, tile after tile, `counts` of each.
    tiles: (K, 4) float64, plane px per image px along x and y, x and y of the tile on the plane.
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
    """Both edges, given in plane px and cut by the plane, in the output and cut by it; the side before that cut."""
    first = min(max(first, 0.0), plane) * scale + shift
    last = min(max(last, 0.0), plane) * scale + shift
    return min(max(first, 0.0), size), min(max(last, 0.0), size), last - first
