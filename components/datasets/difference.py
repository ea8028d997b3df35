"""What changed between two prepared datasets, from their manifests alone: images, labels, classes, box sizes.

An image is its pixels: one that only moved to another name is the same. Fractions and distances are 0..1.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Manifest = Mapping[str, Any]


@dataclass(frozen=True)
class DatasetDiff:
    """added, removed: images whose pixels the other dataset does not have; relabelled: images of both with other boxes.

    fraction: of those three among all images of either. classes_added, classes_removed: names.
    class_shift, size_shift: total variation distance between the two datasets' boxes by class, and by side length.
    """

    images_before: int
    images_after: int
    added: int
    removed: int
    relabelled: int
    fraction: float
    classes_added: tuple[str, ...]
    classes_removed: tuple[str, ...]
    class_shift: float
    size_shift: float

    @property
    def anything(self) -> bool:
        return bool(self.added or self.removed or self.relabelled or self.classes_added or self.classes_removed)


def compare(before: Manifest, after: Manifest) -> DatasetDiff:
    """The difference from one manifest (see `components.datasets.manifest`) to another, over all splits."""
    old, new = _images(before), _images(after)
    relabelled = sum(old[pixels] != new[pixels] for pixels in old.keys() & new.keys())
    added, removed = len(new.keys() - old.keys()), len(old.keys() - new.keys())
    names_before, names_after = ([c["name"] for c in manifest["categories"]] for manifest in (before, after))
    return DatasetDiff(
        images_before=len(old),
        images_after=len(new),
        added=added,
        removed=removed,
        relabelled=relabelled,
        fraction=(added + removed + relabelled) / max(len(old.keys() | new.keys()), 1),
        classes_added=tuple(name for name in names_after if name not in names_before),
        classes_removed=tuple(name for name in names_before if name not in names_after),
        class_shift=_distance(_classes(before), _classes(after)),
        size_shift=max(_distance(_sides(before, side), _sides(after, side)) for side in ("width_px", "height_px")),
    )


def _images(manifest: Manifest) -> dict[tuple[str, str], str]:
    """(split, SHA-256 of the file) -> digest of its labels; of a manifest without them, every label counts as other."""
    images = (path.split("/") for path in manifest["files"] if path.startswith("images/"))
    labels = manifest.get("labels", {})
    return {(parts[1], manifest["files"]["/".join(parts)]): labels.get("/".join(parts), "") for parts in images}


def _classes(manifest: Manifest) -> Counter[str]:
    """Boxes by class."""
    return sum((Counter(split["classes"]) for split in manifest["splits"].values()), Counter())


def _sides(manifest: Manifest, side: str) -> Counter[str]:
    """Boxes by length of one side, in powers of two."""
    return sum((Counter(split["box_sizes"][side]) for split in manifest["splits"].values()), Counter())


def _distance(before: Counter[str], after: Counter[str]) -> float:
    """Half the sum of differences of the shares: 0 for equal shares, 1 for nothing in common."""
    all_before, all_after = before.total() or 1, after.total() or 1
    shares = (abs(before[key] / all_before - after[key] / all_after) for key in before.keys() | after.keys())
    return sum(shares) / 2
