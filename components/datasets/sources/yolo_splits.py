"""Reads the splits of a YOLO dataset: what is known of it, its images, and their labels."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from components.datasets.raw import Category, Quarantined, RawBox, RawDataset, RawImage, RawSplit
from components.datasets.sources import image_files, text_file, yolo_names
from components.datasets.sources.label_files import LabelFiles
from components.datasets.sources.same_picture import are_one_picture
from components.datasets.sources.yolo_labels import DUPLICATE, UNKNOWN, LabelLine, RowFormat, are_polygons, parse
from yolo_core.errors import UserError
from yolo_core.progress import Progress

UNCLEAR = (
    "{} values may be a polygon or a box with keypoints, a confidence or a track id; say which in data.yaml: "
    "task: segment (polygons) or kpt_shape: [number, 2 or 3] (keypoints)"
)
FOLDERS_SHOWN = 4

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Layout:
    """A dataset found on the disk."""

    root: Path
    """Paths in reports are relative to it."""
    names: dict[int, str]
    """Class names by index."""
    images: dict[str, list[Path]]
    """Image folders and list files by split."""
    rows: RowFormat = UNKNOWN


class _Unreadable(Exception):
    """The label file of an image cannot be used; the message says why."""


@dataclass
class _Split:
    """Images of a split, and the rows of their label files by image id."""

    name: str
    files: list[Path]
    images: dict[int, RawImage]
    labels: dict[int, "_Labels"] = field(default_factory=dict)
    quarantined: list[Quarantined] = field(default_factory=list)
    labels_at: str = ""
    """Where its labels were looked for."""


@dataclass(frozen=True, slots=True)
class _Labels:
    """A parsed label file."""

    path: Path
    where: str
    lines: list[LabelLine]
    bad: list[tuple[int, str]]


def read_splits(layout: Layout, progress: Progress) -> RawDataset:
    """Read the images and labels of all splits. Raises UserError for a split without images."""
    categories: list[Category] = [{"id": index, "name": name} for index, name in sorted(layout.names.items())]
    label_files, used = LabelFiles(layout.root), set[Path]()
    splits = [_read(name, layout, label_files, used, progress) for name in layout.images]
    polygons = layout.rows.polygons or are_polygons(_lines(splits))
    _quarantine_shared(splits, layout.root)
    for split in splits:
        split.quarantined += _without_image(split, layout, label_files, used)
    return RawDataset(categories, {split.name: _raw(split, polygons) for split in splits})


def _read(name: str, layout: Layout, label_files: LabelFiles, used: set[Path], progress: Progress) -> _Split:
    places = layout.images[name]
    files = image_files.find(places, layout.root)
    if not files:
        raise UserError(f"{', '.join(map(str, places))}: no images for split {name!r}")
    if lost := image_files.lost_links(places):
        example = shown(lost[0], layout.root)
        log.warning("%s: links that lead to no folder here: %d, for example %s", layout.root, len(lost), example)
    searched = label_files.searched(files)
    yolo_names.refuse_others(layout.names, searched)
    names = image_files.names(files, places, layout.root)
    images = {
        number: RawImage(number, own, path) for number, (own, path) in enumerate(zip(names, files, strict=True), 1)
    }
    split = _Split(name, files, images, labels_at=_folders(searched, layout.root))
    for number, path in enumerate(progress(files, f"read {name} labels", total=len(files)), 1):
        found = label_files.find(path)
        used.update(found)
        try:
            if found:
                split.labels[number] = _labels(found, layout)
        except _Unreadable as error:
            del images[number]
            split.quarantined.append(Quarantined(name, "image", shown(found[0], layout.root), str(error)))
    return split


def _folders(folders: list[Path], root: Path) -> str:
    more = ", ..." if len(folders) > FOLDERS_SHOWN else ""
    return ", ".join(shown(folder, root) for folder in folders[:FOLDERS_SHOWN]) + more


def _labels(found: list[Path], layout: Layout) -> _Labels:
    """The rows of an image's label file; several files must be equal."""
    try:
        contents = [path.read_bytes() for path in found]
        text = text_file.decoded(contents[0])
    except OSError as error:
        raise _Unreadable(f"unreadable label file: {error.strerror}") from None
    except (UnicodeDecodeError, text_file.Pointer) as error:
        raise _Unreadable(f"unreadable label file: {error}") from None
    for path, content in zip(found, contents, strict=True):
        if content != contents[0]:
            raise _Unreadable(
                f"differs from {shown(path, layout.root)}, a second label file of the same image; keep one"
            )
    lines, bad = parse(text, layout.rows)
    if bad and not lines:  # without a box, the image would count as background
        raise _Unreadable(f"no readable row; the first, in line {bad[0][0]}: {bad[0][1]}")
    return _Labels(found[0], shown(found[0], layout.root), lines, bad)


def _quarantine_shared(splits: list[_Split], root: Path) -> None:
    """Quarantine images that share a label file, unless they are copies of one picture: which of them was labelled?"""
    owners: dict[Path, set[Path]] = {}
    for split in splits:
        for number, labels in split.labels.items():
            owners.setdefault(labels.path, set()).add(split.images[number].path)
    shared = {label: sorted(images) for label, images in owners.items() if len(images) > 1}
    unclear = {label: images for label, images in shared.items() if not are_one_picture(images)}
    for split in splits:
        for number, labels in list(split.labels.items()) if unclear else []:
            image = split.images[number].path
            other = next((path for path in unclear.get(labels.path, []) if path != image), None)
            if other:
                reason = f"{labels.where} is also the label file of {shown(other, root)}, another picture; keep one"
                split.quarantined.append(Quarantined(split.name, "image", shown(image, root), reason))
                del split.images[number], split.labels[number]


def _lines(splits: list[_Split]) -> Iterator[LabelLine]:
    return (line for split in splits for labels in split.labels.values() for line in labels.lines)


def _without_image(split: _Split, layout: Layout, label_files: LabelFiles, used: set[Path]) -> Iterator[Quarantined]:
    """Quarantine label files without an image; those whose image is in no list are counted in one line."""
    not_listed = []
    for path in label_files.without_image(layout.images[split.name], split.files, used):
        image = label_files.image_beside(path)
        if image and image.suffix.lower() in image_files.READ:
            not_listed.append(image)
            continue
        reason = f"its image {image.name} has an unsupported format" if image else "missing file: no image for it"
        yield Quarantined(split.name, "image", shown(path, layout.root), reason)
    if not_listed:
        first = shown(not_listed[0], layout.root)
        log.warning("%s: labelled images that are in no list: %d, for example %s", layout.root, len(not_listed), first)


def _raw(split: _Split, polygons: bool) -> RawSplit:
    """The split; without `polygons`, images with rows of more than 5 values are quarantined."""
    raw = RawSplit([], [], quarantined=split.quarantined, labels_at=split.labels_at)
    for number, image in split.images.items():
        labels = split.labels.get(number)
        unclear = next((line for line in labels.lines if line.points), None) if labels and not polygons else None
        if labels and unclear:
            reason = UNCLEAR.format(1 + 2 * unclear.points)
            raw.quarantined.append(Quarantined(split.name, "image", f"{labels.where}:{unclear.number}", reason))
            continue
        raw.images.append(image)
        if labels:
            where = labels.where
            raw.quarantined += [
                Quarantined(split.name, "box", f"{where}:{row}", problem, None if problem == DUPLICATE else number)
                for row, problem in labels.bad
            ]
            raw.boxes += [
                RawBox(None, number, row.class_index, row.xywh, f"{where}:{row.number}", fractions=True)
                for row in labels.lines
            ]
    return raw


def shown(path: Path, root: Path) -> str:
    """A path as reports show it."""
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()
