"""The source `coco-dir`: a folder with COCO instances files and images, as COCO or a tool lays them out."""

from collections.abc import Iterable
from pathlib import Path

from components.datasets.raw import Category, RawDataset, Reading, Resolved
from components.datasets.sources import coco_fields, coco_json, coco_layout, subsets
from components.datasets.sources.coco_json import Instances
from components.datasets.sources.coco_records import read_split
from components.datasets.sources.fingerprint import file_times
from components.datasets.sources.joined import joined
from components.params import Params
from yolo_core.errors import UserError
from yolo_core.progress import Progress


def load(params: Params, *, scratch: Path, downloads: Path, progress: Progress) -> RawDataset:
    """Read the layout at `prepare.location`."""
    return read(_root(params), progress)


def resolve(params: Params) -> Resolved:
    """Fingerprint the folder by the sizes and times of its files."""
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
    splits = {}
    for split, found in chosen.splits.items():
        parts = {}
        for subset in found:
            folders = coco_layout.image_folders(root, layout, subset)
            parts[subset] = read_split(split, root, layout.files[subset], folders, documents[subset])
        splits[split] = joined(parts)
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
    used = any(coco_fields.integer(getattr(record, "category_id", None)) == 0 for record in records)
    return categories if used else others


def _categories(by_file: dict[Path, list[object]]) -> list[Category]:
    """All categories by ascending id. Raises UserError if one is malformed, repeated or has two names."""
    merged: dict[int, Category] = {}
    for path, records in by_file.items():
        own = set()
        for found in records:
            record = _category(found, path)
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


def _category(record: object, path: Path) -> Category:
    """The category with its id as an integer."""
    if isinstance(record, dict):
        number, name = coco_fields.integer(record.get("id")), record.get("name")
        if number is not None and isinstance(name, str) and name.strip():
            return record | {"id": number}  # pyright: ignore[reportReturnType]
    raise UserError(f"{path}: category {record!r:.200} needs an integer id and a name")
