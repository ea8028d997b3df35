"""Class names of YOLO datasets, as written: from classes.txt, one name per line, or from `names` in a data.yaml."""

import json
from collections.abc import Iterable
from pathlib import Path

from components.datasets.sources import text_file
from yolo_core.errors import UserError

BESIDE_LABELS = ("classes.txt", "_darknet.labels")


def from_lines(path: Path) -> dict[int, str]:
    """Names by index, the line number from 0. A blank line is a class without a name, which no label may use."""
    names = {index: line for index, line in enumerate(text_file.read_lines(path)) if line}
    if not names:
        raise UserError(f"{path}: no class names; add one name per line")
    return names


def refuse_others(names: dict[int, str], folders: Iterable[Path]) -> None:
    """Raise UserError if a list of classes beside labels says that their indices mean other classes.

    LabelImg writes one into each folder, in the order in which classes were first drawn there.
    """
    for file in (folder / name for folder in folders for name in BESIDE_LABELS):
        if not file.is_file():
            continue
        own = {index: line for index, line in enumerate(text_file.read_lines(file)) if line}
        index = next((index for index in sorted(own.keys() & names.keys()) if own[index] != names[index]), None)
        if index is not None:
            raise UserError(
                f"{file}: class {index} is {own[index]!r} there and {names[index]!r} for the whole dataset; "
                "renumber the labels beside it, or delete the file if it is stale"
            )


def from_notes(path: Path) -> dict[int, str] | None:
    """Names by index from Label Studio's notes.json, whose classes.txt lacks the ids that a user gave to classes.

    None if it is another file of that name.
    """
    try:
        document = json.loads(text_file.read(path))
        contributor, categories = document["info"]["contributor"], document["categories"]
        names = {record["id"]: record["name"] for record in categories}
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    whole = all(_whole(index) is not None and isinstance(name, str) and name.strip() for index, name in names.items())
    if contributor != "Label Studio" or not names or not whole or len(names) != len(categories):
        return None
    return {int(index): name for index, name in names.items()}


def from_document(document: dict[str, object], path: Path) -> dict[int, str]:
    """Names by index. document: a data.yaml whose values are text, lists and mappings.

    Raises UserError if names are missing, or are not as many as `nc` says.
    """
    given = document.get("names")
    entries = dict(enumerate(given)) if isinstance(given, list) else given
    if not isinstance(entries, dict) or not entries:
        raise UserError(f"{path}: no class names; give names: as a list, or as index: name")
    names: dict[int, str] = {}
    for key, name in entries.items():
        index = _whole(key)
        if index is None or not isinstance(name, str) or not name.strip():
            raise UserError(f"{path}: names: entry {key!r}: {name!r}: expected a whole number from 0, and a name")
        if index in names:
            raise UserError(f"{path}: names: entry {index} is given twice")
        names[index] = name
    _check_count(document.get("nc"), names, path)
    return names


def _check_count(given: object, names: dict[int, str], path: Path) -> None:
    """Compare `nc`, if given, with the names; if indices are missing, it may count them or not."""
    if given in (None, ""):
        return
    if _whole(given) not in (len(names), max(names) + 1):
        raise UserError(f"{path}: nc: {given}, but names: has {len(names)} entries; correct one of them")


def _whole(value: object) -> int | None:
    """A whole number from 0, or None."""
    text = str(value)
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None
