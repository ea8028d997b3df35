"""The manifest of a prepared dataset: its content, its source, and what was left out or changed."""

import hashlib
import json
import math
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal, TypedDict

import msgspec

from components.datasets.box_check import CocoAnnotation
from components.datasets.image_check import NARROW, UNROTATED
from components.datasets.raw import Category, Quarantined
from components.datasets.split_check import CheckedSplit
from components.files import MANIFEST, annotation_file, require
from yolo_core.errors import UserError

FORMAT = "scaled-yolov4 dataset"
VERSION = 1
VALIDATION_FILES = ("images/val/", annotation_file("val"))
# COCO's area limits, px^2
SMALL_PX2, LARGE_PX2 = 32**2, 96**2

_Count = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
_Counts = dict[str, _Count]


class _Category(msgspec.Struct):
    name: str


class _BoxSizes(msgspec.Struct):
    width_px: _Counts
    height_px: _Counts


class _Split(msgspec.Struct):
    images: _Count
    classes: _Counts
    box_sizes: _BoxSizes


class _Splits(msgspec.Struct, forbid_unknown_fields=True):
    train: _Split
    val: _Split


class _Manifest(msgspec.Struct):
    """The parts of a manifest that are read back."""

    sha256: str
    categories: list[_Category]
    splits: _Splits
    files: dict[str, str]
    labels: dict[str, str] = {}


class BoxSizes(TypedDict):
    """Boxes by size."""

    coco: dict[str, int]
    """Boxes by COCO's area range: small, medium, large."""
    width_px: dict[str, int]
    """Box widths by powers of two: "32" counts 32 to below 64 px."""
    height_px: dict[str, int]


class SplitCounts(TypedDict):
    """What a split holds."""

    images: int
    background_images: int
    """Images without any box."""
    narrow_images: int
    """16-bit images that are almost of one shade in 8 bits."""
    unrotated_images: int
    """Images with an EXIF rotation that are left unrotated, because their recorded size ignores it."""
    turned_images: int
    """Images turned by their EXIF rotation whose labels record no size."""
    boxes: int
    """Number of boxes, including crowd boxes."""
    crowd_boxes: int
    """Number of crowd boxes, which are not trained on."""
    clipped_boxes: int
    boxes_below_a_pixel: int
    """Narrower or lower than a pixel."""
    boxes_like_corners: int
    """Boxes whose numbers could be x1 y1 x2 y2."""
    quarantined_images: int
    quarantined_boxes: int
    boxes_of_quarantined_images: int
    partly_labelled_images: int
    """Images that keep only some of their boxes, because others are quarantined."""
    classes: dict[str, int]
    """Boxes by class name, with crowd boxes."""
    box_sizes: BoxSizes


class IndexedCategory(TypedDict):
    """A class: its index in the detector, its id in the source and its name."""

    index: int
    id: int
    name: str


class QuarantinedItem(TypedDict):
    """A quarantined image or box; see `components.datasets.raw.Quarantined`."""

    split: str
    kind: Literal["image", "box"]
    item: str
    reason: str


class Conversion(TypedDict):
    """The files that one kind of conversion changed."""

    count: int
    files: list[str]


class Manifest(TypedDict):
    """The content of manifest.json."""

    format: str
    version: int
    sha256: str
    """Digest of the content; see `content_hash`."""
    source: dict[str, object]
    """Kind, location and other parameters that determine the content."""
    categories: list[IndexedCategory]
    splits: dict[str, SplitCounts]
    quarantine: list[QuarantinedItem]
    conversions: dict[str, Conversion]
    files: dict[str, str]
    """SHA-256 (hex) by path in the dataset folder."""
    labels: dict[str, str]
    """Digest of an image's boxes by its path; missing in manifests of earlier versions."""


class _Found(TypedDict):
    found: int
    quarantined: int


class QuarantineReport(TypedDict):
    """The report on a dataset that was refused."""

    images: _Found
    boxes: _Found
    quarantine: list[QuarantinedItem]


def read(path: Path) -> Manifest:
    """Read a manifest. Raises UserError if it is damaged or something else."""
    try:
        document = json.loads(path.read_bytes())
        msgspec.convert(document, _Manifest)
    except (OSError, ValueError, RecursionError, msgspec.ValidationError) as error:
        raise UserError(f"{path}: not the manifest of a dataset ({error}); run `scaled-yolov4 prepare` again") from None
    return document


def validation_digest(data: Path) -> str:
    """SHA-256 (hex) of the validation split of a dataset folder: its annotations and its images."""
    files = read(require(data / MANIFEST, "prepare"))["files"]
    chosen = (f"{digest}  {path}" for path, digest in sorted(files.items()) if path.startswith(VALIDATION_FILES))
    return hashlib.sha256("\n".join(chosen).encode()).hexdigest()


def classes_digest(document: Manifest) -> str:
    """SHA-256 (hex) of the class names of a dataset, in any order."""
    names = sorted(category["name"] for category in document["categories"])
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()


def build(
    source: dict[str, object],
    categories: list[Category],
    splits: dict[str, CheckedSplit],
    files: dict[str, str],
) -> Manifest:
    """The manifest of a dataset; equal content gives an equal manifest.

    source, files: as in `Manifest`.
    """
    return {
        "format": FORMAT,
        "version": VERSION,
        "sha256": content_hash(files),
        "source": source,
        "categories": [
            {"index": index, "id": record["id"], "name": record["name"]} for index, record in enumerate(categories)
        ],
        "splits": {name: _describe(split, categories) for name, split in splits.items()},
        "quarantine": [_item(item) for split in splits.values() for item in split.quarantined],
        "conversions": _conversions(splits),
        "files": dict(sorted(files.items())),
        "labels": {path: digest for name, split in splits.items() for path, digest in _labels(name, split).items()},
    }


def content_hash(files: dict[str, str]) -> str:
    """SHA-256 (hex) of all paths and file hashes, in any order; also for names that are not valid Unicode."""
    lines = "".join(f"{digest}  {path}\n" for path, digest in sorted(files.items()))
    return hashlib.sha256(lines.encode("utf-8", "surrogatepass")).hexdigest()


def quarantine_report(quarantined: list[Quarantined], found: Counter[str]) -> QuarantineReport:
    """The report on a dataset that was refused: counts, and every item with its reason."""
    refused = Counter(item.kind for item in quarantined)
    return {
        "images": {"found": found["images"], "quarantined": refused["image"]},
        "boxes": {"found": found["boxes"], "quarantined": refused["box"]},
        "quarantine": [_item(item) for item in quarantined],
    }


def _item(left_out: Quarantined) -> QuarantinedItem:
    return {"split": left_out.split, "kind": left_out.kind, "item": left_out.item, "reason": left_out.reason}


def _describe(split: CheckedSplit, categories: list[Category]) -> SplitCounts:
    annotations = split.boxes.annotations
    labelled = {record["image_id"] for record in annotations}
    classes = Counter(record["category_id"] for record in annotations)
    refused = Counter(item.kind for item in split.quarantined)
    return {
        "images": len(split.images),
        "background_images": len(split.images) - len(labelled),
        "narrow_images": len(split.conversions.get(NARROW, [])),
        "unrotated_images": len(split.conversions.get(UNROTATED, [])),
        "turned_images": split.turned_by_exif,
        "boxes": len(annotations),
        "crowd_boxes": sum(record["iscrowd"] for record in annotations),
        "clipped_boxes": split.boxes.clipped,
        "boxes_below_a_pixel": split.boxes.below_a_pixel,
        "boxes_like_corners": split.boxes.like_corners,
        "quarantined_images": refused["image"],
        "quarantined_boxes": refused["box"],
        "boxes_of_quarantined_images": split.boxes.lost,
        "partly_labelled_images": split.partly_labelled,
        "classes": {record["name"]: classes[record["id"]] for record in categories},
        "box_sizes": _box_sizes(annotations),
    }


def _labels(name: str, split: CheckedSplit) -> dict[str, str]:
    """Digest (16 hex digits) of an image's boxes, in any order, by its path."""
    boxes: dict[int, list[str]] = {record["id"]: [] for record in split.images}
    for record in split.boxes.annotations:
        boxes[record["image_id"]].append(str([record["category_id"], record["bbox"], record["iscrowd"]]))
    digests = {image: hashlib.sha256("\n".join(sorted(rows)).encode()).hexdigest() for image, rows in boxes.items()}
    return {f"images/{name}/{record['file_name']}": digests[record["id"]][:16] for record in split.images}


def _box_sizes(annotations: list[CocoAnnotation]) -> BoxSizes:
    ranges = Counter({"small": 0, "medium": 0, "large": 0})
    widths, heights = Counter[int](), Counter[int]()
    for record in annotations:
        area = record["area"]
        ranges["small" if area < SMALL_PX2 else "medium" if area < LARGE_PX2 else "large"] += 1
        for powers, side in zip((widths, heights), record["bbox"][2:], strict=True):
            powers[max(0, math.floor(math.log2(side)))] += 1
    return {"coco": dict(ranges), "width_px": _by_length(widths), "height_px": _by_length(heights)}


def _by_length(powers: Counter[int]) -> dict[str, int]:
    return {str(2**power): powers[power] for power in sorted(powers)}


def _conversions(splits: dict[str, CheckedSplit]) -> dict[str, Conversion]:
    by_kind: dict[str, list[str]] = {}
    for name, split in splits.items():
        for kind, files in split.conversions.items():
            by_kind.setdefault(kind, []).extend(f"images/{name}/{file}" for file in files)
    return {kind: {"count": len(files), "files": files} for kind, files in sorted(by_kind.items())}
