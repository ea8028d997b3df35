"""Splits validation images off a dataset that has none, by the content of the images.

Images are ordered by the SHA-256 of their files, so neither names nor order in a folder matter, equal files stay
together, and adding images moves few of the others. Whole groups stay together by `prepare.group_pattern`.
"""

import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from components.datasets.image_check import MAX_BYTES
from components.datasets.image_index import ImageIndex
from components.datasets.raw import SPLITS, RawDataset, RawImage, RawSplit
from components.datasets.sources.subsets import role
from components.datasets.split_check import without_waiting
from components.params import PrepareParams
from yolo_core.errors import UserError
from yolo_core.progress import Progress


@dataclass(frozen=True)
class Division:
    """How validation images were split off."""

    val_fraction: float
    group_pattern: str | None
    groups: int
    """Groups of images that stay together; equal files are one."""
    val_groups: int

    def __str__(self) -> str:
        by = f"groups by {self.group_pattern!r}" if self.group_pattern else "images by content"
        return f"val_fraction {self.val_fraction:g}: {self.val_groups} of {self.groups} {by} are for validation"


def divide(
    raw: RawDataset, params: PrepareParams, index: ImageIndex, progress: Progress
) -> tuple[RawDataset, Division | None]:
    """Both splits, and how they were made; None if the source has them.

    Raises UserError if there is no validation split and `val_fraction` is not set, or it cannot be split.
    """
    if "val" in raw.splits:
        return raw, None
    if params.val_fraction is None:
        left_out = f" (not read: {', '.join(raw.reading.left_out)})" if raw.reading and raw.reading.left_out else ""
        found = f"{len(raw.splits['train'].images)} images of one split{left_out}"
        tests = [name for name in (raw.reading.left_out if raw.reading else []) if role(name) == "test"]
        instead = f"; {tests[0]} is not used for validation; rename it to val to use it" if tests else ""
        raise UserError(
            f"{params.location}: no validation split, only {found}; "
            f"add one (val or valid{instead}), or set prepare.val_fraction=0.1 to split off a tenth of the images"
        )
    train = raw.splits["train"]
    root = raw.reading.root if raw.reading else Path()
    groups = _groups(train.images, _digests(train.images, index, progress), root, params.group_pattern)
    if not groups:
        raise UserError(
            f"{params.location}: no image can be read, the first is {_first(train)}; "
            "were the images included in the export?"
        )
    chosen = choose({key: len(members) for key, members in groups.items()}, params.val_fraction)
    val = {image.id for key in chosen for image in groups[key]}
    splits = {"train": _part(train, val, inside=False), "val": _part(train, val, inside=True)}
    division = Division(params.val_fraction, params.group_pattern, len(groups), len(chosen))
    return replace(raw, splits=splits), division


def choose(sizes: dict[str, int], fraction: float) -> set[str]:
    """The groups for validation: in the order of their keys, each one that brings the images closer to `fraction`.

    sizes: images by key. At least one group is chosen and one left. Raises UserError if there is only one.
    """
    if len(sizes) < 2:
        raise UserError(
            "prepare.val_fraction: fewer than two groups of readable images (those that share a file are one); "
            "check prepare.group_pattern"
        )
    target, taken = fraction * sum(sizes.values()), 0
    chosen: set[str] = set()
    for key in sorted(sizes):
        if len(chosen) + 1 < len(sizes) and abs(taken + sizes[key] - target) < abs(taken - target):
            chosen.add(key)
            taken += sizes[key]
    return chosen or {min(sizes, key=lambda key: (sizes[key], key))}


def _digests(images: list[RawImage], index: ImageIndex, progress: Progress) -> Iterator[str | None]:
    """SHA-256 (hex) of each file as it lies in the source; None if it cannot be read."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        digests = pool.map(lambda image: index.content(image, SPLITS) or _digest(image.path), images)
        yield from progress(digests, "digest images", total=len(images))


def _digest(path: Path) -> str | None:
    try:
        with open(path, "rb", opener=without_waiting) as file:
            state = os.fstat(file.fileno())
            if not stat.S_ISREG(state.st_mode) or state.st_size > MAX_BYTES:
                return None
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):
        return None


def _groups(
    images: list[RawImage], digests: Iterator[str | None], root: Path, pattern: str | None
) -> dict[str, list[RawImage]]:
    """The readable images by the key of their group: the smallest digest in it. Groups that share a file are one."""
    found: dict[str, list[tuple[str, RawImage]]] = {}
    matched = 0
    for image, digest in zip(images, digests, strict=True):
        if digest is None:
            continue  # stays in train, to be quarantined
        match = re.search(pattern, _path(image, root)) if pattern else None
        named = match.group(1) if match else None
        matched += named is not None
        found.setdefault(f"content {digest}" if named is None else f"group {named}", []).append((digest, image))
    if pattern and found and not matched:
        example = _path(images[0], root)
        raise UserError(f"prepare.group_pattern = {pattern!r}: matches no image's path, for example {example}")
    return {
        min(digest for digest, _ in members): [image for _, image in members] for members in _merged(found.values())
    }


def _merged(groups: Iterable[list[tuple[str, RawImage]]]) -> list[list[tuple[str, RawImage]]]:
    """The groups, those with a digest in common joined: equal images must not stand on both sides."""
    merged: dict[str, list[tuple[str, RawImage]]] = {}  # every digest so far, and its group
    for members in groups:
        known = {id(group): group for digest, _ in members if (group := merged.get(digest)) is not None}
        whole = [member for group in known.values() for member in group] + members
        merged |= dict.fromkeys((digest for digest, _ in whole), whole)
    return list({id(group): group for group in merged.values()}.values())


def _path(image: RawImage, root: Path) -> str:
    """The path that `prepare.group_pattern` is searched in: below the dataset's folder."""
    return (image.path.relative_to(root) if image.path.is_relative_to(root) else Path(image.path.name)).as_posix()


def _first(split: RawSplit) -> object:
    """What to look for: the first image, or why it was refused."""
    return split.images[0].path if split.images else next(iter(split.quarantined), "missing")


def _part(whole: RawSplit, val: set[int], inside: bool) -> RawSplit:
    """The images that are in `val`, or the others, with their boxes; what belongs to no image stays in train."""

    def is_here(image_id: object) -> bool:
        return (type(image_id) is int and image_id in val) == inside

    images = [image for image in whole.images if is_here(image.id)]
    boxes = [box for box in whole.boxes if is_here(box.image_id)]
    split = "val" if inside else "train"
    quarantined = [replace(item, split=split) for item in whole.quarantined if is_here(item.missing_from)]
    return replace(whole, images=images, boxes=boxes, quarantined=quarantined)
