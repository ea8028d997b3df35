"""The data of all sources in the parameters as one dataset, with the classes renamed."""

import difflib
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from components.datasets import class_names, sources
from components.datasets.raw import SPLITS, Category, RawDataset, RawSplit, Reading, Resolved
from components.datasets.sources.fingerprint import fingerprint
from components.datasets.sources.joined import joined
from components.params import ClassNames, Params
from yolo_core.errors import UserError
from yolo_core.progress import Progress


def load(params: Params, *, scratch: Path, downloads: Path, progress: Progress) -> RawDataset:
    """The data of `prepare.location` and `prepare.more`, with the classes of `prepare.classes` renamed.

    The arguments are those of every source (`components.datasets.sources`).

    Raises UserError for a class that is given twice, or one to rename that is not there.
    """
    parts: dict[str, RawDataset] = {}
    for number, (one, classes) in enumerate(_each(params)):
        own = scratch / str(number)
        own.mkdir()
        named = str(one.prepare.location or one.prepare.source)
        raw = sources.module(one.prepare.source).load(one, scratch=own, downloads=downloads, progress=progress)
        class_names.refuse_repeated(raw.categories, named)
        parts[_free(Path(named).name, parts)] = renamed(raw, classes, named)
    names = " and ".join(str(one.prepare.location or one.prepare.source) for one, _ in _each(params))
    return renamed(united(parts), params.prepare.classes, names)


def resolve(params: Params) -> Resolved:
    """What they would deliver now, found out without fetching it."""
    found = [sources.module(one.prepare.source).resolve(one) for one, _ in _each(params)]
    if len(found) == 1:
        return found[0]
    known = [one.fingerprint for one in found if one.fingerprint]
    changes = tuple(change for one in found for change in one.changes)
    return Resolved(fingerprint(known) if len(known) == len(found) else None, changes)


def renamed(raw: RawDataset, names: ClassNames, named: str) -> RawDataset:
    """The dataset with new names for its classes: equal ones merge, and None leaves a class's boxes out.

    named: the dataset's name in an error.
    """
    if not names:
        return raw
    present = [category["name"] for category in raw.categories]
    if unknown := next((name for name in names if name not in present), None):
        near = difflib.get_close_matches(unknown, present, n=3, cutoff=0.4) or present
        raise UserError(f"{named}: no class {unknown!r} to rename; did you mean {', '.join(near)}?")
    kept: dict[str, Category] = {}
    ids: dict[int, int | None] = {}
    for category in raw.categories:
        new = names.get(category["name"], category["name"])
        ids[category["id"]] = None if new is None else kept.setdefault(new, {**category, "name": new})["id"]
    return replace(
        raw,
        categories=list(kept.values()),
        splits={name: _with_classes(split, ids) for name, split in raw.splits.items()},
    )


def united(parts: Mapping[str, RawDataset]) -> RawDataset:
    """One dataset of all parts, by name: classes of one name are one. Licences are those of the first part.

    A lone part stays as it is.
    """
    if len(parts) == 1:
        return next(iter(parts.values()))
    categories: dict[str, Category] = {}
    splits: dict[str, dict[str, RawSplit]] = {}
    for part, raw in parts.items():
        ids: dict[int, int | None] = {}
        for category in raw.categories:
            new: Category = {**category, "id": len(categories) + 1}
            ids[category["id"]] = categories.setdefault(category["name"].strip(), new)["id"]
        for name, split in raw.splits.items():
            splits.setdefault(name, {})[part] = _with_classes(split, ids, part)
    first = next(iter(parts.values()))
    return RawDataset(
        list(categories.values()),
        {name: joined(splits[name]) for name in SPLITS if name in splits},
        first.info,
        first.licenses,
        _reading(parts),
    )


def _each(params: Params) -> Iterator[tuple[Params, ClassNames]]:
    """Parameters for each source alone, and new names of its classes."""
    first = params.prepare.model_copy(update={"more": [], "classes": {}})
    yield params.model_copy(update={"prepare": first}), {}
    for more in params.prepare.more:
        own = first.model_copy(update={"source": more.source, "location": more.location})
        yield params.model_copy(update={"prepare": own}), more.classes


def _free(name: str, taken: Mapping[str, object]) -> str:
    """The name, with a number if it is taken."""
    number = 1
    free = name
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free


def _with_classes(split: RawSplit, ids: Mapping[int, int | None], part: str = "") -> RawSplit:
    """The split with new ids of classes, without boxes whose class has none; an unknown class stays unknown."""
    boxes = []
    for box in split.boxes:
        old = box.category_id
        if type(old) is not int or old not in ids:
            boxes.append(replace(box, category_id=f"{old} of {part}") if part else box)
        elif (new := ids[old]) is not None:
            boxes.append(replace(box, category_id=new))
    return replace(split, boxes=boxes)


def _reading(parts: Mapping[str, RawDataset]) -> Reading | None:
    """How all of them were read."""
    readings = {part: raw.reading for part, raw in parts.items() if raw.reading}
    if not readings:
        return None
    try:
        root = Path(os.path.commonpath([reading.root for reading in readings.values()]))
    except ValueError:  # absolute and relative ones
        root = Path()
    layout = "; ".join(f"{part}: {reading.layout}{reading.why}" for part, reading in readings.items())
    left_out = [f"{part}/{name}" for part, reading in readings.items() for name in reading.left_out]
    return Reading(root, layout, left_out)
