"""Parses YOLO label files and decides what their rows are.

A row is `class cx cy w h`, as fractions of the image's sides, or a polygon `class x1 y1 x2 y2 ...`, which becomes its
box. Tools also write `class cx cy w h` followed by keypoints, a confidence or a track id, which may have as many values
as a polygon. `kpt_shape` or `task` in data.yaml say which it is; otherwise all rows of the dataset decide.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from yolo_core.errors import UserError

NOT_FRACTIONS = 1.5  # larger coordinates are not rounding errors
OUTSIDE = 0.01  # by how much a labelled box may leave the image
SAME_POINT = 0.002  # rounding of coordinates
MOST = 0.9  # of the rows
POLYGON_TASKS = ("segment", "obb")
DUPLICATE = "duplicate line"

Numbers = tuple[float, ...]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class RowFormat:
    """What data.yaml says of rows of more than 5 values."""

    keypoint_values: int | None = None
    """Values of all keypoints of a row."""
    polygons: bool = False
    """Such rows are certainly polygons."""


UNKNOWN = RowFormat()


@dataclass(frozen=True, slots=True)
class LabelLine:
    """A readable line."""

    number: int
    """Line number, from 1."""
    class_index: int
    """Class index, from 0."""
    xywh: Box
    """Left, top, width, height as fractions of the image; of a row that may be a polygon, the polygon's."""
    points: int = 0
    """Number of points of a row that may be a polygon."""
    no_box: bool = False
    """Its first values are not a box within the image, so it is not a box with further values."""
    outline: bool = False
    """Its last point is its first, or its points are a parallelogram's corners: only polygons are like that."""


def row_format(document: dict[str, object], path: Path) -> RowFormat:
    """Row format given by `kpt_shape` ([keypoints, 2 or 3]) and `task` of a data.yaml whose values are text."""
    shape, task = document.get("kpt_shape"), document.get("task")
    if shape in (None, ""):
        return RowFormat(polygons=task in POLYGON_TASKS)
    values = shape if isinstance(shape, list) else []
    numbers = [int(value) for value in values if isinstance(value, str) and value.isascii() and value.isdecimal()]
    if len(numbers) != 2 or len(values) != 2 or not 0 < numbers[0] < 10_000 or numbers[1] not in (2, 3):
        raise UserError(f"{path}: kpt_shape: {shape} must be [number of keypoints, 2 or 3]")
    return RowFormat(keypoint_values=numbers[0] * numbers[1])


def are_polygons(lines: Iterable[LabelLine]) -> bool:
    """Are the rows of more than 5 values of a whole dataset certainly polygons?

    Boxes with further values all have the same length, stay in the image and do not look like outlines.
    """
    rows = [line for line in lines if line.points]
    lengths = Counter(line.points for line in rows)
    if not rows or max(lengths.values()) < MOST * len(rows):
        return True
    outlines, no_boxes = sum(line.outline for line in rows), sum(line.no_box for line in rows)
    return 2 * outlines >= len(rows) or no_boxes >= MOST * len(rows)


def parse(text: str, form: RowFormat = UNKNOWN) -> tuple[list[LabelLine], list[tuple[int, str]]]:
    """The readable lines, and number and problem of the others. Empty lines are skipped.

    Only the format is checked: NaN, sizes and ranges are checked with the boxes of all sources.
    """
    lines: list[LabelLine] = []
    bad: list[tuple[int, str]] = []
    seen: set[Numbers] = set()
    for number, line in enumerate(text.split("\n"), 1):
        words = line.split()
        if not words:
            continue
        values, problem = _values(words, form)
        if problem is None and values in seen:
            problem = DUPLICATE
        if problem is not None:
            bad.append((number, problem))
            continue
        seen.add(values)
        lines.append(_line(number, values, form))
    return lines, bad


def _values(words: list[str], form: RowFormat) -> tuple[Numbers, str | None]:
    """The numbers of a line, and its problem, if any."""
    if len(words) < 5:
        return (), f"expected class cx cy w h, found {len(words)} values"
    if len(words) > 5 and (problem := _length_problem(len(words), form)):
        return (), problem
    try:
        values = tuple(map(_number, words))
    except ValueError:
        return (), f"not a number in {' '.join(words)[:80]!r}"
    if not values[0].is_integer() or values[0] < 0:
        return (), f"class {words[0]!r} is not a whole number from 0"
    if any(abs(value) > NOT_FRACTIONS for value in values[1:5]):  # false for NaN
        return (), "coordinates are not fractions of the image (0 to 1); are they pixels?"
    if form.keypoint_values is None and any(abs(value) > NOT_FRACTIONS for value in values[5:]):
        return (), _neither(len(words))
    return values, None


def _length_problem(length: int, form: RowFormat) -> str | None:
    if form.keypoint_values is not None:
        right = 5 + form.keypoint_values
        return None if length == right else f"{length} values; kpt_shape in data.yaml needs {right}, or 5 for a box"
    return None if length >= 7 and length % 2 else _neither(length)


def _neither(length: int) -> str:
    return (
        f"{length} values are neither a box (5) nor a polygon (class and at least 3 points); "
        "for keypoints, set kpt_shape in data.yaml; remove confidences and track ids"
    )


def _number(word: str) -> float:
    """Like `float`, without Python's underscores."""
    if "_" in word:
        raise ValueError(word)
    return float(word)


def _line(number: int, values: Numbers, form: RowFormat) -> LabelLine:
    class_index, box = int(values[0]), _corner_box(values[1:5])
    if len(values) == 5 or form.keypoint_values is not None:
        return LabelLine(number, class_index, box)
    left, top, w, h = box
    no_box = min(left, top) < -OUTSIDE or max(left + w, top + h) > 1 + OUTSIDE or min(w, h) <= 0
    xs, ys = values[1::2], values[2::2]
    polygon = min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)
    return LabelLine(number, class_index, polygon, len(xs), no_box, _is_outline(xs, ys))


def _corner_box(values: Numbers) -> Box:
    cx, cy, w, h = values
    return cx - w / 2, cy - h / 2, w, h


def _is_outline(xs: Numbers, ys: Numbers) -> bool:
    """Does the last point repeat the first, or are these the four corners of a parallelogram?"""
    if len(xs) == 4:
        return all(abs(side[0] - side[1] + side[2] - side[3]) <= SAME_POINT for side in (xs, ys))
    return len(xs) > 4 and (xs[0], ys[0]) == (xs[-1], ys[-1])
