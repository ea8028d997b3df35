"""The check every source goes through: good images are written, good boxes kept, the rest quarantined with a reason."""

import hashlib
import os
import stat
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.datasets.image_check import MAX_BYTES, BadImage, check_image
from components.datasets.image_index import ImageIndex, Written
from components.datasets.raw import Quarantined, RawBox, RawImage, RawSplit
from yolo_core.progress import Progress

CLIP_TOLERANCE_PX = 0.01  # rounding of label files; less is not worth counting
NUMBERS = frozenset({int, float})  # and not bool, which is an int, too
UNDER_WAY = 4096  # images given to the threads at once: each one in the queue takes memory


@dataclass
class CheckedSplit:
    """What is left of a split, as COCO records, and what happened to the rest.

    found: counts before the check; clipped: boxes cut at the image's edge; lost: boxes gone with their image;
    conversions: "greyscale" and the like -> file names; sha256: file name -> hash (hex).
    """

    images: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)
    found: Counter = field(default_factory=Counter)
    clipped: int = 0
    lost: int = 0
    conversions: dict[str, list[str]] = field(default_factory=dict)
    sha256: dict[str, str] = field(default_factory=dict)


def check_split(
    split: str, raw: RawSplit, category_ids: set[int], out: Path, index: ImageIndex, progress: Progress
) -> CheckedSplit:
    """Check a split and write its good images into the folder `out`; those that `index` knows are linked there."""
    checked = CheckedSplit(quarantined=list(raw.quarantined))
    refused = Counter(item.kind for item in raw.quarantined)
    checked.found.update(images=len(raw.images) + refused["image"], boxes=len(raw.boxes) + refused["box"])
    unique = _unique_images(split, raw.images, checked.quarantined)
    out.mkdir(parents=True, exist_ok=True)
    written: dict[int, Written] = {}
    results = _check_images(split, unique, out, index)
    for image, result in zip(unique, progress(results, f"check {split} images", total=len(unique)), strict=True):
        if isinstance(result, str):
            checked.quarantined.append(Quarantined(split, "image", image.name, result))
            continue
        written[image.id] = result
        checked.sha256[result.name] = result.sha256
        size = {"width": result.width, "height": result.height}
        checked.images.append({"id": image.id, "file_name": result.name, **size, **image.extra})
        for conversion in result.conversions:
            checked.conversions.setdefault(conversion, []).append(result.name)
    _check_boxes(split, raw, category_ids, written, checked)
    return checked


def _unique_images(split: str, images: list[RawImage], quarantined: list[Quarantined]) -> list[RawImage]:
    """The images whose id and file name no earlier one has."""
    ids: set[int] = set()
    names: set[str] = set()
    unique = []
    for image in images:
        if image.id in ids:
            quarantined.append(Quarantined(split, "image", image.name, f"duplicate image id {image.id}"))
        elif image.name in names:
            quarantined.append(Quarantined(split, "image", image.name, f"duplicate file name (image id {image.id})"))
        else:
            ids.add(image.id)
            names.add(image.name)
            unique.append(image)
    return unique


def _check_images(split: str, images: list[RawImage], out: Path, index: ImageIndex) -> Iterator[Written | str]:
    """What became of each image, in order; the cores share the work."""

    def check(image: RawImage) -> Written | str:
        return _write_image(split, image, out, index)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(images), UNDER_WAY):
            batch = images[start : start + UNDER_WAY]
            known = [index.reuse(split, image, out) for image in batch]
            read = pool.map(check, [image for image, written in zip(batch, known, strict=True) if written is None])
            yield from (written or next(read) for written in known)


def _without_waiting(path: str, flags: int) -> int:
    """Open a pipe at once, where a writer would else be waited for."""
    return os.open(path, flags | os.O_NONBLOCK)


def _write_image(split: str, image: RawImage, out: Path, index: ImageIndex) -> Written | str:
    """Write the checked image, or say why it is refused. Runs in a thread: decoding and hashing release the GIL."""
    try:
        with open(image.path, "rb", opener=_without_waiting) as file:
            before = os.fstat(file.fileno())
            if not stat.S_ISREG(before.st_mode):
                return "unreadable: not a file"  # reading a pipe or a device may never end
            if before.st_size > MAX_BYTES:
                return f"too large: {before.st_size / 1e6:.0f} MB"
            data = file.read()
    except FileNotFoundError:
        return f"missing file {image.path}"
    except (OSError, ValueError) as error:  # ValueError: a name that no file system takes
        return f"unreadable: {getattr(error, 'strerror', None) or error}"
    try:
        checked = check_image(data, image.size_px)
    except BadImage as bad:
        return str(bad)
    right = Path(image.name).suffix.lower() in checked.suffixes
    name = image.name if right else image.name + checked.suffixes[0]
    try:
        with (out / name).open("xb") as file:
            file.write(checked.data)
    except FileExistsError:
        return f"duplicate file name {name}"
    digest = hashlib.sha256(checked.data).hexdigest()
    written = Written(name, digest, checked.width, checked.height, checked.scale, checked.conversions)
    index.remember(split, image, before, written, out / name)
    return written


def _check_boxes(
    split: str, raw: RawSplit, category_ids: set[int], written: dict[int, Written], checked: CheckedSplit
) -> None:
    listed = {image.id for image in raw.images}
    seen: set[int] = set()
    next_id = max((box.id for box in raw.boxes if box.id is not None), default=0) + 1
    for box in raw.boxes:
        known = isinstance(box.image_id, int) and box.image_id in listed
        image = written.get(box.image_id) if known else None
        if known and image is None:
            checked.lost += 1
            continue
        problem, xywh_px, clipped = _check_box(box, image, category_ids, seen, raw.fractions)
        if image is None or problem:
            where = f"{box.where}, image {image.name}" if image else box.where
            checked.quarantined.append(Quarantined(split, "box", where, str(problem)))
            continue
        own_id = box.id
        if not own_id:  # 0 also means "no match" to COCO's evaluation
            own_id, next_id = next_id, next_id + 1
        seen.add(own_id)
        checked.clipped += clipped
        checked.annotations.append(_annotation(own_id, box, xywh_px, image))


def _check_box(
    box: RawBox, image: Written | None, category_ids: set[int], seen: set[int], fractions: bool
) -> tuple[str | None, list[float], bool]:
    """(why the box is refused or None, its xywh in px of the written image, whether it was clipped)."""
    if image is None:
        return f"unknown image id {box.image_id!r}", [], False
    if box.id and box.id in seen:
        return f"duplicate annotation id {box.id}", [], False
    if not isinstance(box.category_id, int) or box.category_id not in category_ids:
        return f"unknown category id {box.category_id!r}", [], False
    problem = _number_problem(box.xywh)
    if problem:
        return problem, [], False
    sx, sy = (image.width, image.height) if fractions else image.scale
    xywh = box.xywh
    if (sx, sy) != (1.0, 1.0):  # + 0.0 turns -0.0 into 0.0
        xywh = [round(value * factor, 3) + 0.0 for value, factor in zip(xywh, (sx, sy, sx, sy), strict=True)]
    return _clip(xywh, image.width, image.height, box.xywh)


def _number_problem(xywh: Any) -> str | None:
    if not isinstance(xywh, list | tuple) or len(xywh) != 4 or not NUMBERS.issuperset(map(type, xywh)):
        return f"box {xywh!r:.80} is not four numbers"
    if not all(map(_is_finite, xywh)):
        return f"box {xywh!r:.80} holds NaN or infinity"
    if min(xywh[2:]) < 0:
        return f"box {_show(xywh)} has a negative size"
    if min(xywh[2:]) == 0:
        return f"box {_show(xywh)} has zero size"
    return None


def _is_finite(value: float) -> bool:
    """Also of a whole number with more digits than a float can have, which `math.isfinite` does not take."""
    return abs(value) <= sys.float_info.max


def _clip(xywh: list[float], width: int, height: int, as_found: list[float]) -> tuple[str | None, list[float], bool]:
    x, y, w, h = xywh
    left, top, right, bottom = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
    if right <= left or bottom <= top:
        return f"box {_show(as_found)} lies outside the image ({width}x{height})", [], False
    over = max(left - x, top - y, x + w - right, y + h - bottom)
    if over <= 0:
        return None, xywh, False
    return None, [left, top, round(right - left, 3), round(bottom - top, 3)], over > CLIP_TOLERANCE_PX


def _annotation(own_id: int, box: RawBox, xywh_px: list[float], image: Written) -> dict[str, Any]:
    """The COCO record; an area that is missing, impossible or larger than the box becomes the box's."""
    box_area = round(xywh_px[2] * xywh_px[3], 3)
    area = box.area
    if isinstance(area, int | float) and _is_finite(area) and area > 0:
        factor = image.scale[0] * image.scale[1]
        area = min(area if factor == 1 else round(area * factor, 3), box_area)
    else:
        area = box_area
    return {
        "id": own_id,
        "image_id": box.image_id,
        "category_id": box.category_id,
        "bbox": xywh_px,
        "area": area,
        "iscrowd": int(box.crowd),
    }


def _show(xywh: Sequence[float]) -> str:
    return "[" + ", ".join(f"{value:g}" for value in xywh) + "]"
