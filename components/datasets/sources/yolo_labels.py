"""Parses a YOLO label file: `class cx cy w h` per line, as fractions of the image's sides; polygons become boxes."""

from dataclasses import dataclass

NOT_FRACTIONS = 1.5  # larger coordinates are not rounding errors


@dataclass(frozen=True)
class LabelLine:
    """A readable line."""

    number: int
    """From 1."""
    class_index: int
    """From 0."""
    xywh: tuple[float, float, float, float]
    """Left, top, width, height as fractions of the image."""


def parse(text: str) -> tuple[list[LabelLine], list[tuple[int, str]]]:
    """The readable lines, and number and problem of the others. Empty lines are skipped.

    Only the format is checked: NaN, sizes and ranges are checked with the boxes of all sources.
    """
    lines: list[LabelLine] = []
    bad: list[tuple[int, str]] = []
    seen: set[tuple[float, ...]] = set()
    for number, line in enumerate(text.split("\n"), 1):
        words = line.split()
        if not words:
            continue
        values, problem = _values(words)
        if problem is None and values in seen:
            problem = "duplicate line"
        if problem is not None:
            bad.append((number, problem))
            continue
        seen.add(values)
        lines.append(LabelLine(number, int(values[0]), _xywh(values[1:])))
    return lines, bad


def _values(words: list[str]) -> tuple[tuple[float, ...], str | None]:
    """The numbers of a line, and its problem, if any."""
    if len(words) < 5:
        return (), f"expected class cx cy w h, found {len(words)} values"
    if len(words) > 5 and (len(words) < 7 or len(words) % 2 == 0):
        return (), f"{len(words)} values are neither a box (5) nor a polygon (class and at least 3 points)"
    try:
        values = tuple(float(word) for word in words)
    except ValueError:
        return (), f"not a number in {' '.join(words)[:80]!r}"
    if not values[0].is_integer() or values[0] < 0:
        return (), f"class {words[0]!r} is not a whole number from 0"
    if any(abs(value) > NOT_FRACTIONS for value in values[1:]):  # false for NaN
        return (), "coordinates are not fractions of the image (0 to 1); are they pixels?"
    return values, None


def _xywh(values: tuple[float, ...]) -> tuple[float, float, float, float]:
    if len(values) == 4:
        cx, cy, w, h = values
        return cx - w / 2, cy - h / 2, w, h
    xs, ys = values[0::2], values[1::2]
    left, top = min(xs), min(ys)
    return left, top, max(xs) - left, max(ys) - top
