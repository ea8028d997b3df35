"""The source `coco-dir`: a folder with COCO instances files and image folders."""

import sys
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Literal, TypedDict, TypeGuard

from components.datasets.raw import (
    SPLITS,
    Attribution,
    Category,
    Quarantined,
    RawBox,
    RawDataset,
    RawImage,
    RawSplit,
    Resolved,
)
from components.datasets.sources import coco_json
from components.datasets.sources.coco_json import Annotation, Instances
from components.datasets.sources.fingerprint import file_times
from components.params import Params
from yolo_core.errors import UserError
from yolo_core.progress import Progress

ANNOTATIONS = ("annotations/instances_{}2017.json", "annotations/instances_{}.json")
CARRIED: tuple[Literal["license", "coco_url", "flickr_url", "date_captured"], ...]
CARRIED = ("license", "coco_url", "flickr_url", "date_captured")  # in the order in which they are written
IMAGE_FOLDERS = ("images/{}2017", "images/{}", "{}2017", "{}", "images", ".")


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
    """Is there a COCO annotation file in one of the usual places?"""
    return any((root / pattern.format(split)).is_file() for pattern in ANNOTATIONS for split in SPLITS)


def read(root: Path, progress: Progress) -> RawDataset:
    """Read both splits of the COCO layout at `root`. Raises UserError naming what was not found, and where."""
    if not root.is_dir():
        raise UserError(f"prepare.location = {root}: no such folder")
    files = {split: _first(root, ANNOTATIONS, split, "annotation file") for split in SPLITS}
    documents = {split: coco_json.read(file) for split, file in progress(files.items(), "read annotations", total=2)}
    categories = _categories({files[split]: documents[split].categories for split in SPLITS})
    splits = {split: _split(split, root, files[split], documents[split]) for split in SPLITS}
    info, licenses = documents["train"].info, documents["train"].licenses
    return RawDataset(
        categories, splits, info if isinstance(info, dict) else {}, licenses if isinstance(licenses, list) else []
    )


def _first(root: Path, patterns: tuple[str, ...], split: str, what: str) -> Path:
    candidates = [root / pattern.format(split) for pattern in patterns]
    found = next((path for path in candidates if path.exists()), None)
    if found is None:
        searched = ", ".join(str(path) for path in candidates)
        raise UserError(f"{root}: no {what} for split {split!r}; searched {searched}")
    return found


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


def _split(split: str, root: Path, file: Path, document: Instances) -> RawSplit:
    raw = RawSplit([], [])
    folder = _image_folder(root, split, document.images)
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


def _image_folder(root: Path, split: str, images: list[object]) -> Path:
    """The first folder that holds one of the first images listed, else the first existing one below the root."""
    names = [image["file_name"] for image in images[:10] if _is_image(image)]
    folders = [root / pattern.format(split) for pattern in IMAGE_FOLDERS]
    for folder in folders:
        if any((folder / name).is_file() for name in names):
            return folder
    return _first(root, IMAGE_FOLDERS[:-1], split, "image folder")


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
