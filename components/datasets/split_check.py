"""The check of a split, the same for all sources: good images are written, good boxes kept, the rest quarantined."""

import errno
import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NotRequired, TypedDict

from components.datasets.box_check import CheckedBoxes, check_boxes
from components.datasets.image_check import MAX_BYTES, TURNED, BadImage, check_image
from components.datasets.image_index import ImageIndex, Written
from components.datasets.raw import Quarantined, RawImage, RawSplit
from yolo_core.progress import Progress

IDS_SHOWN = 3
QUEUED = 4096  # images handed to the threads at once: each one in the queue takes memory


class CocoImage(TypedDict):
    """An image of a COCO instances file."""

    id: int
    file_name: str
    width: int
    height: int
    license: NotRequired[object]
    coco_url: NotRequired[object]
    flickr_url: NotRequired[object]
    date_captured: NotRequired[object]


@dataclass
class CheckedSplit:
    """What is left of a split, as COCO records, and what happened to the rest."""

    images: list[CocoImage] = field(default_factory=list)
    boxes: CheckedBoxes = field(default_factory=CheckedBoxes)
    quarantined: list[Quarantined] = field(default_factory=list)
    found: Counter[str] = field(default_factory=Counter)
    """"images" and "boxes" before the check."""
    conversions: dict[str, list[str]] = field(default_factory=dict)
    """File names by conversion ("greyscale" and the like)."""
    sha256: dict[str, str] = field(default_factory=dict)
    """Hash (hex) by file name."""
    turned_by_exif: int = 0
    """Images turned by their EXIF rotation whose labels record no size, so that they may be drawn either way."""
    partly_labelled: int = 0
    """Images that keep only some of their boxes, because others are quarantined."""


def check_split(
    split: str, raw: RawSplit, category_ids: set[int], out: Path, index: ImageIndex, progress: Progress
) -> CheckedSplit:
    """Check a split and write its good images to the folder `out`; those that `index` knows are linked."""
    checked = CheckedSplit(quarantined=list(raw.quarantined))
    refused = Counter(item.kind for item in raw.quarantined)
    checked.found.update(images=len(raw.images) + refused["image"], boxes=len(raw.boxes) + refused["box"])
    labelled = {box.image_id for box in raw.boxes if type(box.image_id) is int}
    unique = _unique_images(split, raw.images, labelled, checked.quarantined)
    out.mkdir(parents=True, exist_ok=True)
    written: dict[int, Written] = {}
    results = _check_images(split, unique, out, index)
    for image, result in zip(unique, progress(results, f"check {split} images", total=len(unique)), strict=True):
        if isinstance(result, str):
            checked.quarantined.append(Quarantined(split, "image", image.name, result))
            continue
        written[image.id] = result
        checked.sha256[result.name] = result.sha256
        checked.images.append(
            {
                "id": image.id,
                "file_name": result.name,
                "width": result.width,
                "height": result.height,
                **image.extra,
            }
        )
        checked.turned_by_exif += TURNED in result.conversions and image.size_px is None
        for conversion in result.conversions:
            checked.conversions.setdefault(conversion, []).append(result.name)
    checked.boxes = check_boxes(split, raw, category_ids, written)
    checked.quarantined += checked.boxes.quarantined
    _drop_images_without_their_boxes(split, checked, out)
    return checked


def _drop_images_without_their_boxes(split: str, checked: CheckedSplit, out: Path) -> None:
    """Quarantine images all of whose boxes are quarantined: they would count as background, which they are not."""
    labelled = {annotation["image_id"] for annotation in checked.boxes.annotations}
    missing: dict[int, list[Quarantined]] = {}
    for item in checked.quarantined:
        if item.kind == "box" and type(item.missing_from) is int:
            missing.setdefault(item.missing_from, []).append(item)
    incomplete = [image for image in checked.images if image["id"] in missing]
    dropped = {image["file_name"]: image["id"] for image in incomplete if image["id"] not in labelled}
    for name, image_id in dropped.items():
        first, count = missing[image_id][0], len(missing[image_id])
        reason = f"none of its boxes ({count}) can be used; the first is {first.item}: {first.reason}"
        checked.quarantined.append(Quarantined(split, "image", name, reason))
        del checked.sha256[name]
        (out / name).unlink()
    checked.partly_labelled = len(incomplete) - len(dropped)
    if dropped:
        checked.images = [image for image in checked.images if image["file_name"] not in dropped]
        kept = {kind: [name for name in names if name not in dropped] for kind, names in checked.conversions.items()}
        checked.conversions = {kind: names for kind, names in kept.items() if names}


def _unique_images(
    split: str, images: list[RawImage], labelled: set[int], quarantined: list[Quarantined]
) -> list[RawImage]:
    """The images without those that repeat a file name, or whose id is that of another image as well.

    It is unclear which of several images with the same id a box belongs to. Of the records of one file the one with
    boxes is kept; if several have boxes, each of them lacks those of the others. labelled: ids of images with boxes.
    """
    names_of: dict[int, set[str]] = {}
    ids_of: dict[str, set[int]] = {}
    for image in images:
        names_of.setdefault(image.id, set()).add(image.name)
        ids_of.setdefault(image.name, set()).add(image.id)
    owners = {name: ids & labelled for name, ids in ids_of.items() if len(ids) > 1}
    names: set[str] = set()
    unique = []
    for image in images:
        with_boxes = owners.get(image.name, set())
        if len(names_of[image.id]) > 1:
            reason = f"image id {image.id} is given to {len(names_of[image.id])} images"
            quarantined.append(Quarantined(split, "image", image.name, reason))
        elif len(with_boxes) > 1:
            ids = _some(with_boxes)
            reason = f"its file has {len(with_boxes)} image records with boxes of their own (ids {ids}); merge them"
            quarantined.append(Quarantined(split, "image", image.name, reason))
        elif image.name in names or (with_boxes and image.id not in with_boxes):
            quarantined.append(Quarantined(split, "image", image.name, f"duplicate file name (image id {image.id})"))
        else:
            names.add(image.name)
            unique.append(image)
    return unique


def _some(ids: set[int]) -> str:
    return ", ".join(map(str, sorted(ids)[:IDS_SHOWN])) + (", ..." if len(ids) > IDS_SHOWN else "")


def _check_images(split: str, images: list[RawImage], out: Path, index: ImageIndex) -> Iterator[Written | str]:
    """The result for each image, in order: what was written, or why it was refused. Uses all cores."""

    def check(image: RawImage) -> Written | str:
        return _write_image(split, image, out, index)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(images), QUEUED):
            batch = images[start : start + QUEUED]
            known = [index.reuse(split, image, out) for image in batch]
            read = pool.map(check, [image for image, written in zip(batch, known, strict=True) if written is None])
            yield from (written or next(read) for written in known)


def without_waiting(path: str, flags: int) -> int:
    """Open without waiting for a writer, should it be a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)


def _write_image(split: str, image: RawImage, out: Path, index: ImageIndex) -> Written | str:
    """Write the checked image, or say why it is refused. Threads help: decoding and hashing release the GIL."""
    try:
        with open(image.path, "rb", opener=without_waiting) as file:
            before = os.fstat(file.fileno())
            if not stat.S_ISREG(before.st_mode):
                return "unreadable: not a file"  # reading a pipe or device may never end
            if before.st_size > MAX_BYTES:
                return f"too large: {before.st_size / 1e6:.0f} MB"
            data = file.read()
    except FileNotFoundError:
        return f"missing file {image.path}"
    except (OSError, ValueError) as error:  # ValueError: an impossible file name
        return f"unreadable: {getattr(error, 'strerror', None) or error}"
    try:
        checked = check_image(data, image.size_px)
    except BadImage as bad:
        return str(bad)
    except Exception as error:  # one bad image must not end the run
        return f"unreadable: {type(error).__name__}: {error}"
    right = Path(image.name).suffix.lower() in checked.suffixes
    name = image.name if right else image.name + checked.suffixes[0]
    try:
        with (out / name).open("xb") as file:
            file.write(checked.data)
    except FileExistsError:
        return f"duplicate file name {name}"
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return "file name too long"
        raise
    content = hashlib.sha256(data).hexdigest()
    digest = content if checked.data is data else hashlib.sha256(checked.data).hexdigest()
    written = Written(name, digest, checked.width, checked.height, checked.scale, checked.conversions)
    index.remember(split, image, before, content, written, out / name)
    return written
