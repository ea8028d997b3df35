"""Turns the records of a COCO file into images and boxes; what cannot be understood is quarantined with the reason."""

import math
import os
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Literal, TypedDict, TypeGuard

from components.datasets.raw import Attribution, Quarantined, RawBox, RawImage, RawSplit
from components.datasets.sources import coco_fields, coco_images, image_files
from components.datasets.sources.coco_json import Annotation, Instances
from components.datasets.sources.rotated import around_rotated

CARRIED: tuple[Literal["license", "coco_url", "flickr_url", "date_captured"], ...]
CARRIED = ("license", "coco_url", "flickr_url", "date_captured")  # in the order in which they are written
SHOWN = 200  # characters of a record in a report
MOST_BITS = 1024  # of an image id

Id = int | str


class _ImageRecord(TypedDict):
    """Fields of an image record that `_image_problem` has accepted."""

    id: Id
    file_name: str


def read_split(split: str, root: Path, file: Path, folders: Sequence[Path], document: Instances) -> RawSplit:
    """The images and boxes of a file. folders: where images may lie. Raises UserError if there are none of them."""
    raw = RawSplit([], [], labels_at=str(file))
    ids = _image_ids(document)
    _read_images(split, root, file, folders, document.images, ids, raw)
    for record in document.annotations:
        if not isinstance(record, Annotation):
            raw.quarantined.append(Quarantined(split, "box", str(record)[:SHOWN], f"not an annotation ({file.name})"))
            continue
        crowd = coco_fields.flag(record.iscrowd)
        if crowd is None:
            reason = f"iscrowd {record.iscrowd!r:.80} is neither 0 nor 1"
            missing_from = _image_id(record.image_id, ids)
            raw.quarantined.append(Quarantined(split, "box", f"annotation {record.id}", reason, missing_from))
            continue
        try:
            xywh = _upright(coco_fields.box(record.bbox), record.attributes)
        except ValueError as error:
            missing_from = _image_id(record.image_id, ids)
            raw.quarantined.append(Quarantined(split, "box", f"annotation {record.id}", str(error), missing_from))
            continue
        category_id = coco_fields.integer(record.category_id)
        raw.boxes.append(
            RawBox(
                id=record.id if type(record.id) is int else None,
                image_id=_image_id(record.image_id, ids),
                category_id=record.category_id if category_id is None else category_id,
                xywh=xywh,
                where=f"annotation {record.id}",
                area=coco_fields.number(record.area),
                crowd=crowd,
            )
        )
    return raw


def _upright(xywh: object, attributes: object) -> object:
    """The box around one that CVAT has turned; any other stays. Raises ValueError."""
    degrees = coco_fields.number(attributes.get("rotation", 0)) if isinstance(attributes, dict) else 0
    if degrees in (0, None, ""):
        return xywh
    if not coco_fields.is_number(degrees) or not math.isfinite(degrees):
        raise ValueError(f"its rotation {degrees!r:.80} is not a number")
    values = xywh if isinstance(xywh, list) else []
    four = len(values) == 4 and all(coco_fields.is_number(value) and math.isfinite(value) for value in values)
    return list(around_rotated((*values,), degrees)) if four else xywh


def _read_images(
    split: str,
    root: Path,
    file: Path,
    folders: Sequence[Path],
    records: Sequence[object],
    ids: Mapping[str, int],
    raw: RawSplit,
) -> None:
    def quarantine(record: object, problem: str) -> None:
        item = record.get("file_name") if isinstance(record, dict) else None
        raw.quarantined.append(Quarantined(split, "image", str(item or record)[:SHOWN], f"{problem} ({file.name})"))

    good: list[_ImageRecord] = []
    for record in records:
        if _is_image(record):
            good.append(record)
        else:
            quarantine(record, _image_problem(record) or "")
    found = coco_images.locate(root, folders, [record["file_name"] for record in good])
    unique = list(dict.fromkeys(found.paths.values()))
    names = dict(zip(unique, image_files.names(unique, [found.folder, *folders], root), strict=True))
    for record in good:
        path = found.paths.get(record["file_name"])
        if path is None:
            quarantine(record, "file name points outside the image folder")
            continue
        own_id = coco_fields.integer(record["id"])
        own_id = ids[str(record["id"])] if own_id is None else own_id
        raw.images.append(RawImage(own_id, names[path], path, _size(record), _attribution(record)))


def _image_ids(document: Instances) -> dict[str, int]:
    """The smallest free numbers for image ids that are texts such as "frame_7" or exceed 64 bits, by the id as text."""
    given = [record.get("id") for record in document.images if isinstance(record, dict)]
    texts = dict.fromkeys(str(one) for one in given if _is_text_id(one))
    if not texts:
        return {}
    given += [record.image_id for record in document.annotations if isinstance(record, Annotation)]
    used = {coco_fields.integer(one) for one in given}
    free = (number for number in count(1) if number not in used)
    return dict(zip(texts, free, strict=False))


def _is_text_id(value: object) -> bool:
    if coco_fields.integer(value) is not None:
        return False
    return value.bit_length() <= MOST_BITS if type(value) is int else isinstance(value, str) and bool(value.strip())


def _image_id(given: object, ids: Mapping[str, int]) -> object:
    """The number of an image; what no image has stays as it is, for the report."""
    number = coco_fields.integer(given)
    if number is None and _is_text_id(given):
        number = ids.get(str(given))
    return given if number is None else number


def _is_image(record: object) -> TypeGuard[_ImageRecord]:
    return _image_problem(record) is None


def _image_problem(record: object) -> str | None:
    """What is wrong with an image record, or None."""
    if not isinstance(record, dict) or not isinstance(record.get("file_name"), str) or not record["file_name"]:
        return "image record without file_name"
    if coco_fields.integer(record.get("id")) is None and not _is_text_id(record.get("id")):
        return f"image id {record.get('id')!r:.80} is neither a whole number nor a text"
    try:
        impossible = b"\0" in os.fsencode(record["file_name"])
    except UnicodeEncodeError:
        impossible = True
    return "file name that no file can have" if impossible else None


def _size(record: Mapping[str, object]) -> tuple[float, float] | None:
    """The recorded (width, height), px; None if it is missing or impossible."""
    width, height = coco_fields.number(record.get("width")), coco_fields.number(record.get("height"))
    if coco_fields.is_number(width) and coco_fields.is_number(height) and width > 0 and height > 0:
        return width, height
    return None


def _attribution(record: Mapping[str, object]) -> Attribution:
    kept: Attribution = {}
    for key in CARRIED:
        if key in record:
            kept[key] = record[key]
    return kept
