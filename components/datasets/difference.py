"""What changed between two prepared datasets, from their manifests alone: images, labels, classes, box sizes.

Images are identified by their pixels: a renamed one is the same. Fractions and distances are 0 to 1.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from components.datasets.manifest import Manifest


@dataclass(frozen=True)
class DatasetDiff:
    """The difference from one dataset to another."""

    images_before: int
    images_after: int
    added: int
    """Images whose pixels are only in the new dataset."""
    removed: int
    """Images whose pixels are only in the old dataset."""
    relabelled: int
    """Images in both, with other boxes."""
    fraction: float
    """Added, removed and relabelled among all images of either dataset."""
    classes_added: tuple[str, ...]
    classes_removed: tuple[str, ...]
    class_shift: float
    """Total variation distance between the boxes' distributions by class."""
    size_shift: float
    """The same by side length, the larger of width and height."""

    @property
    def anything(self) -> bool:
        return bool(self.added or self.removed or self.relabelled or self.classes_added or self.classes_removed)


def compare(before: Manifest, after: Manifest) -> DatasetDiff:
    """The difference from one manifest to another, over all splits."""
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
        size_shift=max(
            _distance(_sides(before, "width_px"), _sides(after, "width_px")),
            _distance(_sides(before, "height_px"), _sides(after, "height_px")),
        ),
    )


def _images(manifest: Manifest) -> dict[tuple[str, str], str]:
    """Digest of the labels by (split, SHA-256 of the image); without them in the manifest, all labels differ."""
    images = (path.split("/") for path in manifest["files"] if path.startswith("images/"))
    labels = manifest.get("labels", {})
    return {(parts[1], manifest["files"]["/".join(parts)]): labels.get("/".join(parts), "") for parts in images}


def _classes(manifest: Manifest) -> Counter[str]:
    """Boxes by class."""
    return sum((Counter(split["classes"]) for split in manifest["splits"].values()), Counter())


def _sides(manifest: Manifest, side: Literal["width_px", "height_px"]) -> Counter[str]:
    """Boxes by length of one side, in powers of two."""
    return sum((Counter(split["box_sizes"][side]) for split in manifest["splits"].values()), Counter())


def _distance(before: Counter[str], after: Counter[str]) -> float:
    """Half the sum of the differences in shares: 0 if equal, 1 if nothing in common."""
    all_before, all_after = before.total() or 1, after.total() or 1
    shares = (abs(before[key] / all_before - after[key] / all_after) for key in before.keys() | after.keys())
    return sum(shares) / 2
