"""Which subsets of a dataset are for training and which for validation: told by their names."""

from collections.abc import Collection
from dataclasses import dataclass

from yolo_core.errors import UserError

# In order of preference, in lower case: of two names for the same, the first one found is taken.
NAMES = {
    "train": ("train2017", "train", "training", "trainval"),
    "val": ("val2017", "val", "valid", "validation"),
    "test": ("test2017", "test", "testing"),
}


@dataclass(frozen=True)
class Chosen:
    """The subsets to read."""

    splits: dict[str, list[str]]
    """Subsets by split: "train", and "val" unless the data have no validation subset."""
    left_out: list[str]
    """Subsets that are not read."""


def role(subset: str) -> str | None:
    """The kind of subset that a name stands for: a key of `NAMES`, or None."""
    return next((kind for kind, names in NAMES.items() if subset.lower() in names), None)


def choose(found: Collection[str], where: object) -> Chosen:
    """Choose among subsets by name.

    A lone subset is for training whatever its name, and so are all with names of the user's own if none is called
    train or val. Raises UserError naming `where` if there are several and none is for training.
    """
    named = {kind: name for kind, names in NAMES.items() if (name := _first(found, names)) is not None}
    own = sorted(subset for subset in found if role(subset) is None)
    if "train" in named:
        splits = {split: [named[split]] for split in ("train", "val") if split in named}
    elif len(found) == 1 or (own and "val" not in named):
        splits = {"train": own or list(found)}
    else:
        names = ", ".join(map(repr, sorted(found)))
        raise UserError(
            f"{where}: no split 'train', only {names}; rename one to train, or give the folder of one alone"
        )
    taken = {subset for subsets in splits.values() for subset in subsets}
    return Chosen(splits, sorted(set(found) - taken))


def _first(found: Collection[str], names: tuple[str, ...]) -> str | None:
    known = {subset.lower(): subset for subset in sorted(found)}
    return next((known[name] for name in names if name in known), None)
