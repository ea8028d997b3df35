"""The check of boxes: good ones become COCO annotations, clipped at the image's edge, the rest is quarantined."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypedDict

from components.datasets.image_index import Written
from components.datasets.raw import Quarantined, RawBox, RawSplit

CLIP_TOLERANCE_PX = 0.01  # rounding in label files; smaller cuts are not counted
NUMBERS = frozenset({int, float})  # not bool, which is an int, too


class CocoAnnotation(TypedDict):
    """An annotation of a COCO instances file."""

    id: int
    image_id: int
    category_id: int
    bbox: Sequence[float]
    """Left, top, width, height, px."""
    area: float
    """px^2, at most the box's."""
    iscrowd: int


class BadBox(Exception):
    """The box cannot be used; the message says why."""


class RepeatedBox(BadBox):
    """The box is there already."""


@dataclass
class CheckedBoxes:
    """The good boxes of a split, and what happened to the rest."""

    annotations: list[CocoAnnotation] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)
    clipped: int = 0
    """Boxes cut at the image's edge."""
    below_a_pixel: int = 0
    """Boxes narrower or lower than a pixel."""
    like_corners: int = 0
    """Boxes that could be x1 y1 x2 y2: the third value exceeds the first, the fourth the second."""
    lost: int = 0
    """Boxes dropped with their image."""


def check_boxes(split: str, raw: RawSplit, category_ids: set[int], written: dict[int, Written]) -> CheckedBoxes:
    """Check the boxes of a split. written: its good images by id."""
    checked = CheckedBoxes()
    listed = {image.id for image in raw.images}
    seen: dict[int, CocoAnnotation] = {}
    free_ids = _free_ids(raw.boxes)
    for box in raw.boxes:
        image_id, image = box.image_id, None
        if type(image_id) is int and image_id in listed:
            image = written.get(image_id)
            if image is None:
                checked.lost += 1
                continue
        try:
            if image is None or type(image_id) is not int:
                raise BadBox(f"unknown image id {image_id!r}")
            category_id = _category_id(box, category_ids)
            found = _numbers(box.xywh)
            xywh_px, clipped = _placed(found, image, box.fractions)
            annotation: CocoAnnotation = {
                "id": box.id or next(free_ids),  # 0 also means "no match" in COCO's evaluation
                "image_id": image_id,
                "category_id": category_id,
                "bbox": xywh_px,
                "area": _area(box.area, xywh_px, image),
                "iscrowd": int(box.crowd),
            }
            if annotation["id"] in seen:
                if annotation == seen[annotation["id"]]:
                    raise RepeatedBox(f"annotation {box.id} is given twice")
                annotation["id"] = next(free_ids)
        except BadBox as bad:
            where = f"{box.where}, image {image.name}" if image else box.where
            missing_from = None if isinstance(bad, RepeatedBox) else image_id
            checked.quarantined.append(Quarantined(split, "box", where, str(bad), missing_from))
            continue
        seen[annotation["id"]] = annotation
        checked.clipped += clipped
        checked.below_a_pixel += min(xywh_px[2:]) < 1
        checked.like_corners += _like_corners(found, box.fractions)
        checked.annotations.append(annotation)
    return checked


def _free_ids(boxes: list[RawBox]) -> Iterator[int]:
    free = max((box.id for box in boxes if box.id is not None), default=0)
    while True:
        free += 1
        yield free


def _category_id(box: RawBox, category_ids: set[int]) -> int:
    if type(box.category_id) is not int or box.category_id not in category_ids:
        raise BadBox(f"unknown category id {box.category_id!r}")
    return box.category_id


def _placed(found: Sequence[float], image: Written, fractions: bool) -> tuple[Sequence[float], bool]:
    """(xywh in px of the written image, whether it was clipped)."""
    xywh = found
    sx, sy = (image.width, image.height) if fractions else image.scale
    if (sx, sy) != (1.0, 1.0):  # + 0.0 turns -0.0 into 0.0
        xywh = [round(value * factor, 3) + 0.0 for value, factor in zip(found, (sx, sy, sx, sy), strict=True)]
    return _clip(xywh, image.width, image.height, found)


def _numbers(xywh: object) -> Sequence[float]:
    """Four finite numbers with a positive size."""
    if not isinstance(xywh, list | tuple) or len(xywh) != 4 or not NUMBERS.issuperset(map(type, xywh)):
        raise BadBox(f"box {xywh!r:.80} is not four numbers")
    if not all(map(_is_finite, xywh)):
        raise BadBox(f"box {xywh!r:.80} holds NaN or infinity")
    if min(xywh[2:]) < 0:
        raise BadBox(f"box {_show(xywh)} has a negative size")
    if min(xywh[2:]) == 0:
        raise BadBox(f"box {_show(xywh)} has zero size")
    return xywh


def _like_corners(xywh: Sequence[float], centred: bool) -> bool:
    """Do the numbers in the label file increase as those of corners do? centred: the first two were the centre."""
    x, y, w, h = xywh
    return (w > x + w / 2 and h > y + h / 2) if centred else (w > x and h > y)


def _is_finite(value: float) -> bool:
    """Also for integers too large for a float, which `math.isfinite` does not take."""
    return abs(value) <= sys.float_info.max


def _clip(xywh: Sequence[float], width: int, height: int, found: Sequence[float]) -> tuple[Sequence[float], bool]:
    x, y, w, h = xywh
    left, top, right, bottom = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
    if right <= left or bottom <= top:
        raise BadBox(f"box {_show(found)} lies outside the image ({width}x{height})")
    over = max(left - x, top - y, x + w - right, y + h - bottom)
    if over <= 0:
        return xywh, False
    return [left, top, round(right - left, 3), round(bottom - top, 3)], over > CLIP_TOLERANCE_PX


def _area(found: object, xywh_px: Sequence[float], image: Written) -> float:
    """The area, px^2; one that is missing, impossible or larger than the box becomes the box's."""
    box_area = round(xywh_px[2] * xywh_px[3], 3)
    if isinstance(found, int | float) and type(found) in NUMBERS and _is_finite(found) and found > 0:
        factor = image.scale[0] * image.scale[1]
        return min(found if factor == 1 else round(found * factor, 3), box_area)
    return box_area


def _show(xywh: Sequence[float]) -> str:
    return "[" + ", ".join(f"{value:g}" for value in xywh) + "]"
