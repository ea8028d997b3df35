"""The manifest of a prepared dataset: what it holds, where it came from, and what was left out or changed."""

import hashlib
import json
import math
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import msgspec

from components.datasets.checks import CheckedSplit
from components.datasets.raw import Quarantined
from components.files import require
from yolo_core.errors import UserError

NAME = "manifest.json"
FORMAT = "scaled-yolov4 dataset"
VERSION = 1
VALIDATION_FILES = ("images/val/", "annotations/instances_val.json")
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
    """What others read of a manifest."""

    sha256: str
    categories: list[_Category]
    splits: _Splits
    files: dict[str, str]
    labels: dict[str, str] = {}


def read(path: Path) -> dict[str, Any]:
    """The manifest in a file that is there; UserError where it is damaged or something else."""
    try:
        document = json.loads(path.read_bytes())
        msgspec.convert(document, _Manifest)
    except (OSError, ValueError, RecursionError, msgspec.ValidationError) as error:
        raise UserError(f"{path}: not the manifest of a dataset ({error}); run `scaled-yolov4 prepare` again") from None
    return document


def validation_digest(data: Path) -> str:
    """SHA-256 (hex) of the validation split of a dataset folder: its annotations and its images."""
    files = read(require(data / NAME, "prepare"))["files"]
    chosen = (f"{digest}  {path}" for path, digest in sorted(files.items()) if path.startswith(VALIDATION_FILES))
    return hashlib.sha256("\n".join(chosen).encode()).hexdigest()


def build(
    source: dict[str, Any],
    categories: list[dict[str, Any]],
    splits: dict[str, CheckedSplit],
    files: dict[str, str],
) -> dict[str, Any]:
    """The manifest as JSON-ready values; equal content gives an equal manifest.

    source: kind, location and whatever decides its content; files: path in the dataset folder -> SHA-256 (hex).
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
        "quarantine": [asdict(item) for split in splits.values() for item in split.quarantined],
        "conversions": _conversions(splits),
        "files": dict(sorted(files.items())),
        "labels": {path: digest for name, split in splits.items() for path, digest in _labels(name, split).items()},
    }


def content_hash(files: dict[str, str]) -> str:
    """SHA-256 (hex) of all paths and file hashes, whatever their order (names that are no valid Unicode included)."""
    lines = "".join(f"{digest}  {path}\n" for path, digest in sorted(files.items()))
    return hashlib.sha256(lines.encode("utf-8", "surrogatepass")).hexdigest()


def quarantine_report(quarantined: list[Quarantined], found: Counter) -> dict[str, Any]:
    """What stands in the report of a dataset that was refused: counts and every item with its reason."""
    refused = Counter(item.kind for item in quarantined)
    return {
        "images": {"found": found["images"], "quarantined": refused["image"]},
        "boxes": {"found": found["boxes"], "quarantined": refused["box"]},
        "quarantine": [asdict(item) for item in quarantined],
    }


def _describe(split: CheckedSplit, categories: list[dict[str, Any]]) -> dict[str, Any]:
    labelled = {record["image_id"] for record in split.annotations}
    classes = Counter(record["category_id"] for record in split.annotations)
    refused = Counter(item.kind for item in split.quarantined)
    return {
        "images": len(split.images),
        "background_images": len(split.images) - len(labelled),
        "boxes": len(split.annotations),
        "crowd_boxes": sum(record["iscrowd"] for record in split.annotations),
        "clipped_boxes": split.clipped,
        "quarantined_images": refused["image"],
        "quarantined_boxes": refused["box"],
        "boxes_of_quarantined_images": split.lost,
        "classes": {record["name"]: classes[record["id"]] for record in categories},
        "box_sizes": _box_sizes(split.annotations),
    }


def _labels(name: str, split: CheckedSplit) -> dict[str, str]:
    """Image path -> digest (16 hex digits) of its boxes, whatever their order."""
    boxes: dict[int, list[str]] = {record["id"]: [] for record in split.images}
    for record in split.annotations:
        boxes[record["image_id"]].append(str([record["category_id"], record["bbox"], record["iscrowd"]]))
    digests = {image: hashlib.sha256("\n".join(sorted(rows)).encode()).hexdigest() for image, rows in boxes.items()}
    return {f"images/{name}/{record['file_name']}": digests[record["id"]][:16] for record in split.images}


def _box_sizes(annotations: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts in COCO's three ranges of area, and of width and height by powers of two ("32" holds 32 to below 64)."""
    ranges = Counter({"small": 0, "medium": 0, "large": 0})
    sides: dict[str, Counter] = {"width_px": Counter(), "height_px": Counter()}
    for record in annotations:
        area = record["area"]
        ranges["small" if area < SMALL_PX2 else "medium" if area < LARGE_PX2 else "large"] += 1
        for name, side in zip(sides, record["bbox"][2:], strict=True):
            sides[name][max(0, math.floor(math.log2(side)))] += 1
    bins = {name: {str(2**power): counts[power] for power in sorted(counts)} for name, counts in sides.items()}
    return {"coco": dict(ranges), **bins}


def _conversions(splits: dict[str, CheckedSplit]) -> dict[str, dict[str, Any]]:
    """For each kind of change: how many files and which."""
    by_kind: dict[str, list[str]] = {}
    for name, split in splits.items():
        for kind, files in split.conversions.items():
            by_kind.setdefault(kind, []).extend(f"images/{name}/{file}" for file in files)
    return {kind: {"count": len(files), "files": files} for kind, files in sorted(by_kind.items())}
