"""The source `voc-dir`: annotation files of Pascal VOC with their images.

Looks like  Annotations/*.xml, JPEGImages/, ImageSets/Main/{train,val}.txt  or has the XML files beside the images, in
one folder or in train/, valid/ and test/.
"""

import os
import re
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from components.datasets.raw import Category, Quarantined, RawBox, RawDataset, RawImage, RawSplit, Reading, Resolved
from components.datasets.sources import image_files, subsets, text_file, voc_xml
from components.datasets.sources.fingerprint import file_times
from components.datasets.sources.same_picture import are_one_picture
from components.params import Params
from yolo_core.errors import UserError
from yolo_core.progress import Progress

ANNOTATIONS = ("Annotations", "annotations", "xmls")
IMAGES = ("JPEGImages", "images", "Images")
LISTS = "ImageSets/Main"
NAME_FILES = ("labelmap.txt", "labels.txt", "classes.txt", "predefined_classes.txt")
LOOKED_FOR = "Annotations/*.xml, or *.xml beside the images (Pascal VOC)"
HEAD_BYTES = 4096
ROOT = re.compile(rb"<annotation[\s>]")


@dataclass(frozen=True)
class _Layout:
    """A dataset found on the disk."""

    root: Path
    annotations: Path
    """Folder of the XML files."""
    images: Path
    """Folder of the images."""
    files: dict[str, list[Path]]
    """XML files by item, the path below `annotations` without suffix; several if suffixes differ in case."""
    items: dict[str, list[str]]
    """Items by subset."""


class _Unclear(Exception):
    """The annotation file of an image cannot be used; the message says why."""


@dataclass
class _Split:
    """The parsed files of a split, by id of their image."""

    raw: RawSplit
    files: dict[int, tuple[str, voc_xml.VocFile]] = field(default_factory=dict)


def load(params: Params, *, scratch: Path, downloads: Path, progress: Progress) -> RawDataset:
    """Read the layout at `prepare.location`."""
    return read(_location(params), progress)


def resolve(params: Params) -> Resolved:
    """Fingerprint the folder by the sizes and times of its files."""
    return Resolved(file_times(_location(params)))


def _location(params: Params) -> Path:
    if not params.prepare.location:
        raise UserError("prepare.location: not set; source voc-dir needs the folder that holds Annotations and images")
    return Path(params.prepare.location).expanduser()


def is_layout(root: Path) -> bool:
    """Are there annotation files of Pascal VOC?"""
    return _annotations(root) is not None


def read(root: Path, progress: Progress) -> RawDataset:
    """Read the layout at `root`. Raises UserError naming what was not found, and where."""
    if not root.is_dir():
        raise UserError(f"prepare.location = {root}: no such folder")
    annotations = _annotations(root)
    if annotations is None:
        raise UserError(f"{root}: no annotations; looked for {LOOKED_FOR}")
    layout = _layout(root, annotations)
    chosen = subsets.choose(layout.items, root)
    pictures = _Pictures(layout.images)
    splits = {
        split: _parsed(split, [item for subset in found for item in layout.items[subset]], layout, pictures, progress)
        for split, found in chosen.splits.items()
    }
    names = _names(root, splits.values())
    for split in splits.values():
        _add_boxes(split, {name: index for index, name in enumerate(names)})
    categories: list[Category] = [{"id": index, "name": name} for index, name in enumerate(names)]
    unlabelled = pictures.without({item for items in layout.items.values() for item in items})
    images = "1 image" if unlabelled == 1 else f"{unlabelled} images"
    left_out = [*chosen.left_out, *([f"{images} that no list or XML file names"] if unlabelled else [])]
    shown = "beside the images" if annotations == layout.images else annotations.relative_to(root)
    reading = Reading(root, f"Pascal VOC (*.xml {shown})", left_out)
    return RawDataset(categories, {name: split.raw for name, split in splits.items()}, reading=reading)


def _annotations(root: Path) -> Path | None:
    """The folder of annotation files, which is the root if they lie beside the images."""
    folders = [root / name for name in ANNOTATIONS if (root / name).is_dir()]
    found = next((folder for folder in folders if any(map(_is_voc, _xml_files(folder)))), None)
    return found or (root if any(map(_is_voc, _beside_images(root))) else None)


def _beside_images(root: Path) -> Iterator[Path]:
    for here, names in image_files.walk(root):
        if any(Path(name).suffix.lower() in image_files.READ for name in names):
            yield from (here / name for name in names if _is_xml(name))


def _xml_files(folder: Path) -> Iterator[Path]:
    return (here / name for here, names in image_files.walk(folder) for name in names if _is_xml(name))


def _is_xml(name: str) -> bool:
    return name.lower().endswith(".xml")


def _is_voc(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return ROOT.search(file.read(HEAD_BYTES)) is not None
    except OSError:
        return False


def _layout(root: Path, annotations: Path) -> _Layout:
    images = next((root / name for name in IMAGES if (root / name).is_dir()), root)
    files: dict[str, list[Path]] = {}
    for path in _xml_files(annotations):
        files.setdefault(path.relative_to(annotations).with_suffix("").as_posix(), []).append(path)
    items = _listed(root, files) or _by_folder(files)
    return _Layout(root, annotations, root if annotations == root else images, files, items)


def _listed(root: Path, files: Container[str]) -> dict[str, list[str]]:
    """The images of each list, apart from lists of one class, such as cat_train.txt beside train.txt."""
    lists = {path.stem: path for path in sorted((root / LISTS).glob("*.txt"))}
    whole = {stem: path for stem, path in lists.items() if stem.rpartition("_")[2] not in lists.keys() - {stem}}
    items = {stem: list(dict.fromkeys(_lines(path, files))) for stem, path in whole.items()}
    if {"train", "val"} <= items.keys():
        items.pop("trainval", None)
    return {stem: lines for stem, lines in items.items() if lines}


def _lines(path: Path, files: Container[str]) -> Iterator[str]:
    """The images that a list names: a name a line, perhaps in quotes, perhaps with 1, 0 or -1 behind it."""
    for line in text_file.read_lines(path):
        name, _, flag = line.rpartition(" ")
        if line.startswith('"'):
            yield line.split('"')[1]
        elif line:
            flagged = name and flag in ("1", "0", "-1") and line not in files
            yield name.rstrip() if flagged else line


def _by_folder(files: Iterable[str]) -> dict[str, list[str]]:
    """All annotation files, by their first folder if that is named like a subset."""
    folders = {item: item.partition("/")[0] if "/" in item else "" for item in files}
    divided = any(map(subsets.role, folders.values()))
    items: dict[str, list[str]] = {}
    for item, folder in folders.items():
        items.setdefault((divided and folder) or "all", []).append(item)
    return items


class _Pictures:
    """The images of a folder by their path without suffix."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._found: dict[str, list[Path]] = {}
        for path in image_files.find([folder], folder):
            self._found.setdefault(path.relative_to(folder).with_suffix("").as_posix(), []).append(path)

    def of(self, item: str, filename: str) -> Path:
        """The image of an annotation file; where it should be, if there is none.

        The name of the annotation file counts; the name that it holds only if that finds none, or several.
        Raises _Unclear if that does not decide between several pictures.
        """
        found = self._found.get(item) or self._found.get(item.rpartition("/")[2]) or []
        if len(found) == 1:
            return found[0]
        places = (self._folder / item).parent, self._folder
        named = [place / filename for place in places if filename and os.path.isfile(place / filename)]  # noqa: PTH113
        if len(found) > 1 and not named and not are_one_picture(found):
            names = " or ".join(path.name for path in found)
            raise _Unclear(f"the image may be {names}; write its name into <filename>, or keep one")
        return (named or found or [self._folder / (filename or f"{item}.jpg")])[0]

    def without(self, items: set[str]) -> int:
        """The number of images that no annotation file names."""
        names = items | {item.rpartition("/")[2] for item in items}
        return sum(len(paths) for item, paths in self._found.items() if item not in names)


def _parsed(split: str, items: list[str], layout: _Layout, pictures: _Pictures, progress: Progress) -> _Split:
    parsed = _Split(RawSplit([], [], labels_at=str(layout.annotations)))
    paths: dict[int, Path] = {}
    for number, item in enumerate(progress(items, f"read {split} annotations", total=len(items)), 1):
        found = layout.files.get(item, [])
        where = found[0].relative_to(layout.annotations).as_posix() if found else f"{item}.xml"
        try:
            file = _only_file(found)
            paths[number] = pictures.of(item, file.filename)
        except _Unclear as unclear:
            parsed.raw.quarantined.append(Quarantined(split, "image", where, str(unclear)))
            continue
        bad = ((f"{where}, object {n}", why) for n, why in file.bad)
        parsed.raw.quarantined += [Quarantined(split, "box", object_at, why, number) for object_at, why in bad]
        parsed.files[number] = (where, file)
    names = image_files.names(list(paths.values()), [layout.images], layout.root)
    for (number, path), name in zip(paths.items(), names, strict=True):
        parsed.raw.images.append(RawImage(number, name, path, parsed.files[number][1].size_px))
    return parsed


def _only_file(found: list[Path]) -> voc_xml.VocFile:
    """The parsed annotation file of an item. Raises _Unclear."""
    if not found:
        raise _Unclear("no annotation file, though a list names the image")
    if len(found) > 1:
        raise _Unclear(f"{found[1].name} is an annotation file of the same image; keep one")
    try:
        return voc_xml.parse(found[0].read_bytes())
    except (OSError, ValueError, voc_xml.BadXml) as error:
        raise _Unclear(f"unreadable annotation file: {getattr(error, 'strerror', None) or error}") from None


def _names(root: Path, splits: Iterable[_Split]) -> list[str]:
    """The class names of a file that lists them, else of all objects, sorted."""
    used = {found.name for split in splits for _, file in split.files.values() for found in file.objects}
    path = next((root / name for name in NAME_FILES if (root / name).is_file()), None)
    if path is None:
        if not used:
            raise UserError(f"{root}: no objects in any annotation file, so no class names; list them in labels.txt")
        return sorted(used)
    lines = [line for line in text_file.read_lines(path) if line and not line.startswith("#")]
    names = [line.rsplit(":", 3)[0] if path.name == "labelmap.txt" else line for line in lines]
    return [name for name in dict.fromkeys(names) if name in used or name != "background"]


def _add_boxes(split: _Split, indices: dict[str, int]) -> None:
    """A difficult object becomes a crowd box: not trained on, and neither right nor wrong in the evaluation."""
    for image_id, (where, file) in split.files.items():
        split.raw.boxes += [
            RawBox(
                None,
                image_id,
                indices.get(found.name, found.name),
                found.xywh,
                f"{where}, object {found.number}",
                crowd=found.difficult,
            )
            for found in file.objects
        ]
