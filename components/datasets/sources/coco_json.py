"""Parses a COCO instances file without building what is not used: segmentations are most of it.

Only an annotation without a box takes its box from its segmentation.
"""

import json
from pathlib import Path
from typing import Any

import msgspec

from components.datasets.image_check import LFS_POINTER, POINTER_ADVICE
from components.datasets.sources.coco_outlines import box_around
from yolo_core.errors import UserError

LISTS = ("images", "annotations", "categories")
NO_BOX = (None, [], [0, 0, 0, 0])  # as tools write that draw masks only


class Annotation(msgspec.Struct, gc=False):
    """The used fields of an annotation record, whatever they hold; None if missing."""

    id: Any = None
    image_id: Any = None
    category_id: Any = None
    bbox: Any = None
    area: Any = None
    iscrowd: Any = None
    attributes: Any = None
    """CVAT's; of them the rotation is used."""


class Instances(msgspec.Struct):
    """The file. Entries of `annotations` that are not JSON objects are kept as they are."""

    images: list[Any]
    annotations: list[Annotation | Any]
    categories: list[Any]
    info: Any = None
    licenses: Any = None


class _Regular(Instances):
    annotations: list[Annotation]


def read(path: Path) -> Instances:
    """Parse the file. Raises UserError naming the file unless it holds the three lists."""
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: not a file")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        read = msgspec.json.decode(data, type=_Regular)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _read_irregular(path, data)
    return _read_irregular(path, data) if any(one.bbox in NO_BOX for one in read.annotations) else read


def _read_irregular(path: Path, data: bytes) -> Instances:
    """The same with the standard library, six times slower: it accepts NaN and says what is wrong, and where.

    It also finds the boxes of segmentations.
    """
    try:
        document = json.loads(data, object_hook=_without_segmentation)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error}); save it as UTF-8") from None
    except ValueError as error:
        if data.startswith(LFS_POINTER):
            raise UserError(f"{path}: {POINTER_ADVICE}") from None
        raise UserError(f"{path}: not valid JSON ({error}); was it cut off while copying?") from None
    except RecursionError:
        raise UserError(f"{path}: nested too deep for a COCO instances file") from None
    if not isinstance(document, dict):
        raise UserError(f"{path}: expected a COCO object with images, annotations and categories")
    for key in LISTS:
        if not isinstance(document.get(key), list):
            raise UserError(f"{path}: no list {key!r}; a COCO instances file has images, annotations and categories")
    annotations = [_annotation(record) for record in document["annotations"]]
    return Instances(
        document["images"], annotations, document["categories"], document.get("info"), document.get("licenses")
    )


def _without_segmentation(record: dict[str, object]) -> dict[str, object]:
    """Drop a segmentation as soon as its annotation is parsed, or all of them fill the memory."""
    segmentation = record.pop("segmentation", None)
    if segmentation and record.get("bbox") in NO_BOX and (box := box_around(segmentation)):
        record["bbox"] = box
    return record


def _annotation(record: object) -> object:
    if not isinstance(record, dict):
        return record
    return Annotation(**{field: record.get(field) for field in Annotation.__struct_fields__})
