"""The rule for class names that holds for every source."""

from collections.abc import Iterable

from components.datasets.raw import Category
from yolo_core.errors import UserError


def refuse_repeated(categories: list[Category], named: str) -> None:
    """Raise UserError if two classes have the same name: metrics and counts by name would hold one of them.

    named: the dataset's name in the error.
    """
    ids: dict[str, int] = {}
    for record in categories:
        name = record["name"].strip()
        if name in ids:
            both = f"{ids[name]} and {record['id']}"
            raise UserError(f"{named}: class name {name!r} is given twice, to classes {both}; rename or merge them")
        ids[name] = record["id"]


def alike(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Names that differ only in case, blanks, "-" or "_": perhaps one class, which training would tell apart."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault("".join(name.casefold().replace("-", "").replace("_", "").split()), []).append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]
