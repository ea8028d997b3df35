"""The box around a COCO segmentation: polygons, or a mask in run lengths."""

from collections.abc import Sequence

from components.datasets.sources.coco_fields import is_number

MAX_SIDE = 2**31


def box_around(segmentation: object) -> list[float] | None:
    """Left, top, width, height, px; None for what is neither polygons nor run lengths, or holds no pixel."""
    if isinstance(segmentation, list):
        return _around_polygons(segmentation)
    if isinstance(segmentation, dict):
        return _around_mask(segmentation.get("counts"), segmentation.get("size"))
    return None


def _around_polygons(polygons: list[object]) -> list[float] | None:
    """Bounding box of polygons: lists x1 y1 x2 y2 ..., or one such list alone."""
    if polygons and all(map(is_number, polygons)):
        polygons = [polygons]
    xs: list[float] = []
    ys: list[float] = []
    for points in polygons:
        if not isinstance(points, list) or len(points) < 6 or len(points) % 2 or not all(map(is_number, points)):
            return None
        xs += points[0::2]
        ys += points[1::2]
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)] if xs else None


def _around_mask(counts: object, size: object) -> list[float] | None:
    """Bounding box of a COCO RLE mask: column-major runs, alternating background and foreground."""
    if not isinstance(size, list) or len(size) != 2 or not all(type(n) is int and 0 < n < MAX_SIDE for n in size):
        return None
    if isinstance(counts, str):
        counts = _unpacked(counts)
    if not isinstance(counts, list) or not all(type(n) is int and n >= 0 for n in counts):
        return None
    height, width = size
    if sum(counts) > height * width:
        return None
    return _around_runs(counts, height)


def _around_runs(counts: Sequence[int], height: int) -> list[float] | None:
    columns: list[int] = []
    rows: list[int] = []
    start = 0
    for index, length in enumerate(counts):
        if index % 2 and length:
            last = start + length - 1
            columns += [start // height, last // height]
            same_column = start // height == last // height
            rows += [start % height, last % height] if same_column else [0, height - 1]
        start += length
    if not columns:
        return None
    left, top = min(columns), min(rows)
    return [left, top, max(columns) - left + 1, max(rows) - top + 1]


def _unpacked(text: str) -> list[int] | None:
    """Run lengths from COCO's text; None for any other.

    A character less 48 holds 5 bits, lowest first, and a sixth bit if more follow. From the fourth number on, each is
    the difference to the one before the last.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 60:
            return None
        value |= (code & 0x1F) << shift
        shift += 5
        if not code & 0x20:
            if code & 0x10:
                value -= 1 << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return None if shift else counts
