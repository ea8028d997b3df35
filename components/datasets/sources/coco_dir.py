"""The source `coco-dir`: a folder with COCO instances files and images, as COCO or a tool lays them out."""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Literal, TypedDict, TypeGuard

from components.datasets.raw import (
    Attribution,
    Category,
    Quarantined,
    RawBox,
    RawDataset,
    RawImage,
    RawSplit,
    Reading,
    Resolved,
)
from components.datasets.sources import coco_json, coco_layout, subsets
from components.datasets.sources.coco_json import Annotation, Instances
from components.datasets.sources.coco_layout import Layout
from components.datasets.sources.fingerprint import file_times
from components.datasets.sources.joined import joined
from components.params import Params
from yolo_core.errors import UserError
from yolo_core.progress import Progress

CARRIED: tuple[Literal["license", "coco_url", "flickr_url", "date_captured"], ...]
CARRIED = ("license", "coco_url", "flickr_url", "date_captured")  # in the order in which they are written


class _ImageRecord(TypedDict):
    """What is certain of an image record without `_image_problem`."""

    id: int
    file_name: str


def load(params: Params, *, scratch: Path, downloads: Path, progress: Progress) -> RawDataset:
    """Read the layout at `prepare.location`."""
    return read(_root(params), progress)


def resolve(params: Params) -> Resolved:
    """By the sizes and times of the files."""
    return Resolved(file_times(_root(params)))


def _root(params: Params) -> Path:
    if not params.prepare.location:
        raise UserError("prepare.location: not set; source coco-dir needs the folder that holds annotations and images")
    return Path(params.prepare.location).expanduser()


def is_layout(root: Path) -> bool:
    """Are there COCO annotations in one of the usual places?"""
    return coco_layout.find(root) is not None


def read(root: Path, progress: Progress) -> RawDataset:
    """Read the COCO layout at `root`. Raises UserError naming what was not found, and where."""
    if not root.is_dir():
        raise UserError(f"prepare.location = {root}: no such folder")
    layout = coco_layout.find(root)
    if layout is None:
        raise UserError(f"{root}: no COCO annotations; looked for {coco_layout.LOOKED_FOR}")
    chosen = subsets.choose(layout.files, root)
    used = [subset for found in chosen.splits.values() for subset in found]
    documents = {
        subset: coco_json.read(layout.files[subset]) for subset in progress(used, "read annotations", total=len(used))
    }
    categories = _categories({layout.files[subset]: document.categories for subset, document in documents.items()})
    categories = _without_placeholder(categories, documents.values())
    splits = {
        split: joined({subset: _split(split, root, layout, subset, documents[subset]) for subset in found})
        for split, found in chosen.splits.items()
    }
    first = documents[used[0]]
    info = first.info if isinstance(first.info, dict) else {}
    licenses = first.licenses if isinstance(first.licenses, list) else []
    return RawDataset(categories, splits, info, licenses, Reading(root, layout.name, chosen.left_out))


def _without_placeholder(categories: list[Category], documents: Iterable[Instances]) -> list[Category]:
    """Without the unused category 0 by which Roboflow names the whole, often with the name of a class."""
    first, *others = categories
    placeholder = (
        first["id"] == 0
        and first.get("supercategory") == "none"
        and others
        and all(other.get("supercategory") == first["name"] for other in others)
    )
    if not placeholder:
        return categories
    records = (record for document in documents for record in document.annotations)
    used = any(getattr(record, "category_id", None) == 0 for record in records)
    return categories if used else others


def _categories(by_file: dict[Path, list[object]]) -> list[Category]:
    """All categories by ascending id. Raises UserError if one is malformed, repeated or has two names."""
    merged: dict[int, Category] = {}
    for path, records in by_file.items():
        own = set()
        for record in records:
            if not _is_category(record):
                raise UserError(f"{path}: category {record!r} needs an integer id and a name")
            if record["id"] in own:
                raise UserError(f"{path}: category id {record['id']} is given twice")
            own.add(record["id"])
            known = merged.setdefault(record["id"], record)
            if known["name"] != record["name"]:
                raise UserError(
                    f"{path}: category {record['id']} is {record['name']!r} here and {known['name']!r} in another split"
                )
    if not merged:
        raise UserError(f"{next(iter(by_file))}: the list of categories is empty")
    return [merged[key] for key in sorted(merged)]


def _is_category(record: object) -> TypeGuard[Category]:
    return isinstance(record, dict) and _is_int(record.get("id")) and isinstance(record.get("name"), str)


def _split(split: str, root: Path, layout: Layout, subset: str, document: Instances) -> RawSplit:
    file = layout.files[subset]
    raw = RawSplit([], [], labels_at=str(file))
    names = [image["file_name"] for image in document.images[:10] if _is_image(image)]
    folder = coco_layout.image_folder(root, layout, subset, names)
    for record in document.images:
        if not _is_image(record):
            item = record.get("file_name") if isinstance(record, dict) else None
            reason = f"{_image_problem(record)} ({file.name})"
            raw.quarantined.append(Quarantined(split, "image", str(item or record)[:200], reason))
            continue
        name = str(PurePosixPath(record["file_name"]))
        raw.images.append(
            RawImage(record["id"], name.replace("/", "_"), folder / name, _size(record), _attribution(record))
        )
    for record in document.annotations:
        if not isinstance(record, Annotation):
            raw.quarantined.append(Quarantined(split, "box", str(record)[:200], f"not an annotation ({file.name})"))
            continue
        raw.boxes.append(
            RawBox(
                id=record.id if _is_int(record.id) else None,
                image_id=record.image_id,
                category_id=record.category_id,
                xywh=record.bbox,
                where=f"annotation {record.id}",
                area=record.area,
                crowd=bool(record.iscrowd),
            )
        )
    return raw


def _is_image(record: object) -> TypeGuard[_ImageRecord]:
    return _image_problem(record) is None


def _image_problem(record: object) -> str | None:
    """What is wrong with an image record, or None."""
    if not isinstance(record, dict) or not isinstance(record.get("file_name"), str) or not record["file_name"]:
        return "image record without file_name"
    if not _is_int(record.get("id")):
        return "image id is not an integer"
    path = PurePosixPath(record["file_name"])
    if path.is_absolute() or ".." in path.parts or "\\" in record["file_name"] or "\0" in record["file_name"]:
        return "file name points outside the image folder"
    return None


def _size(record: Mapping[str, object]) -> tuple[float, float] | None:
    """The recorded (width, height), px; None if it is missing or impossible."""
    width, height = record.get("width"), record.get("height")
    return (width, height) if _is_number(width) and _is_number(height) and width > 0 and height > 0 else None


def _attribution(record: Mapping[str, object]) -> Attribution:
    kept: Attribution = {}
    for key in CARRIED:
        if key in record:
            kept[key] = record[key]
    return kept


def _is_number(value: object) -> TypeGuard[float]:
    """Not for integers too large for a float."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _is_int(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
