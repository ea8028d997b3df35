"""The source `yolo-dir`: image folders with one label file per image, described by a data.yaml or a classes.txt.

Looks like  images/{train,val}/*.jpg, labels/{train,val}/*.txt, classes.txt  or like a dataset yaml with
`path`, `train`, `val` (folders, lists of folders, or text files that list images) and `names`.
"""

import logging
import os
from dataclasses import replace
from pathlib import Path

from components import yaml_text
from components.datasets.raw import RawDataset, Reading, Resolved
from components.datasets.sources import darknet, image_files, subsets, text_file, yolo_names
from components.datasets.sources.fingerprint import file_times
from components.datasets.sources.yolo_labels import row_format
from components.datasets.sources.yolo_splits import Layout, read_splits
from components.params import Params
from yolo_core.errors import UserError
from yolo_core.progress import Progress

YAML_NAMES = ("data.yaml", "dataset.yaml", "data.yml", "dataset.yml")
# LabelImg writes classes.txt where it writes labels; the last two are Roboflow's.
CLASSES = ("classes.txt", "labels/classes.txt", "_darknet.labels", "train/_darknet.labels")
NOTES = "notes.json"  # Label Studio's
FOLDERS = "images/SPLIT/, SPLIT/images/, SPLIT/, images/"
LOOKED_FOR = "data.yaml, obj.data (CVAT), classes.txt, _darknet.labels (Roboflow) or labels/ (YOLO)"
NOTHING = ("", "~", "null", "Null", "NULL")  # of YAML

log = logging.getLogger(__name__)


def load(params: Params, *, scratch: Path, downloads: Path, progress: Progress) -> RawDataset:
    """Read the layout at `prepare.location`, a folder or a dataset yaml."""
    return read(_location(params), progress)


def resolve(params: Params) -> Resolved:
    """Fingerprint the files by size and time; unknown for a dataset yaml, whose images may be anywhere."""
    location = _location(params)
    elsewhere = location.is_file() or any((location / name).is_file() for name in YAML_NAMES)
    return Resolved(None if elsewhere or _lists_elsewhere(location) else file_times(location))


def _lists_elsewhere(location: Path) -> bool:
    """Does an obj.data list images outside the folder?"""
    if not (location / darknet.NAME).is_file():
        return False
    lists = darknet.files(location / darknet.NAME)[1].values()
    listed = (os.path.relpath(path, location) for file in lists for path in image_files.listed(file, location))
    return any(path.startswith("..") for path in listed)


def _location(params: Params) -> Path:
    if not params.prepare.location:
        raise UserError("prepare.location: not set; source yolo-dir needs a folder or a dataset yaml")
    return Path(params.prepare.location).expanduser()


def is_layout(root: Path) -> bool:
    """Does `root` look like a YOLO layout?"""
    names = (*YAML_NAMES, darknet.NAME, *CLASSES)
    return any((root / name).is_file() for name in names) or (root / "labels").is_dir()


def read(location: Path, progress: Progress) -> RawDataset:
    """Read the splits of the layout. Raises UserError naming what was not found, and where."""
    layout, described_by = _layout(location)
    chosen = subsets.choose(layout.images, location)
    images = {
        split: [place for subset in found for place in layout.images[subset]] for split, found in chosen.splits.items()
    }
    raw = read_splits(replace(layout, images=images), progress)
    return replace(raw, reading=Reading(layout.root, f"YOLO ({described_by})", chosen.left_out))


def _layout(location: Path) -> tuple[Layout, str]:
    """The layout, its images by subset, and the file that describes it."""
    if location.is_file():
        return _from_yaml(location), location.name
    if not location.is_dir():
        raise UserError(f"prepare.location = {location}: no such folder or dataset yaml")
    for name in YAML_NAMES:
        if (location / name).is_file():
            layout = _from_yaml(location / name)
            _warn_of_other_names(layout.names, location / name)
            return layout, name
    if (location / darknet.NAME).is_file():
        classes, lists = darknet.files(location / darknet.NAME)
        images = {subset: [listed] for subset, listed in lists.items()}
        return Layout(location, yolo_names.from_lines(classes), images), f"{darknet.NAME}, {classes.name}"
    notes = yolo_names.from_notes(location / NOTES) if (location / NOTES).is_file() else None
    if notes:
        return Layout(location, notes, _usual(location)), f"{NOTES} of Label Studio"
    classes = next((location / name for name in CLASSES if (location / name).is_file()), None)
    if classes is None:
        raise UserError(f"{location}: no class names; add classes.txt (one name per line) or data.yaml with names:")
    return Layout(location, yolo_names.from_lines(classes), _usual(location)), classes.name


def _warn_of_other_names(names: dict[int, str], path: Path) -> None:
    """Say that a file beside a yaml names other classes: one of them is stale."""
    beside = [path.parent / name for name in ("obj.names", "classes.txt") if (path.parent / name).is_file()]
    for file in beside:
        if {index: line for index, line in enumerate(text_file.read_lines(file)) if line} != names:
            log.warning("%s names other classes than %s, which is used; delete the wrong one", file, path.name)


def _from_yaml(path: Path) -> Layout:
    document = yaml_text.parse_texts(text_file.read(path), str(path))
    if not isinstance(document, dict):
        raise UserError(f"{path}: expected keys such as train:, val: and names:")
    names, rows = yolo_names.from_document(document, path), row_format(document, path)
    root = _root(document.get("path"), path)
    named = {key: entries for key in ("train", "val", "valid", "test") if (entries := _entries(document.get(key)))}
    if "train" in named:
        named = {_key(key, entries, root): entries for key, entries in named.items()}
    used = {subset for found in subsets.choose(named, path).splits.values() for subset in found} if named else set()
    images = {
        key: [_place(root, entry, path) for entry in entries] if key in used else [] for key, entries in named.items()
    }
    roles = set(map(subsets.role, images))
    found = _divided(root) or ({} if images else _usual(root))
    images |= {subset: places for subset, places in found.items() if subsets.role(subset) not in roles}
    return Layout(root, names, images, rows)


def _key(key: str, entries: list[str], root: Path) -> str:
    """The subset; one that is not there is no validation subset. Roboflow names valid/ and test/ in any case."""
    there = key == "train" or any(_find(root, entry) for entry in entries)
    return key if there else f"{key} ({entries[0]} not found)"


def _entries(value: object) -> list[str]:
    """What a key such as `train` holds: a path, a list of them, or nothing."""
    values = value if isinstance(value, list) else [value]
    return [str(entry) for entry in values if entry is not None and entry not in NOTHING]


def _root(given: object, path: Path) -> Path:
    """The folder that a data.yaml names as `path`, relative to the file; without one, the file's folder."""
    named = _entries(given)
    if not named:
        return path.parent
    candidates = [path.parent / spelling for spelling in image_files.spellings(named[0])]
    found = next((folder for folder in candidates if os.path.isdir(folder)), None)  # noqa: PTH112
    if found is None:
        log.warning("%s: path: %s: no such folder; using %s instead", path, named[0], path.parent)
    return found or path.parent


def _usual(root: Path) -> dict[str, list[Path]]:
    """The image folders of each subset; all images are one if there are no subsets. Raises UserError without images."""
    found = _divided(root)
    if found:
        _warn_of_labelled_outside(root, [place for places in found.values() for place in places])
        return found
    images = image_files.in_any_case(root / "images")
    if images and image_files.find([images], root) and not _labelled_outside(root, [images]):
        return {images.name: [images]}
    if image_files.find([root], root):
        return {root.name: [root]}
    raise UserError(f"{root}: no images; searched {FOLDERS} and the folder itself")


def _warn_of_labelled_outside(root: Path, places: list[Path]) -> None:
    outside = _labelled_outside(root, places)
    if outside:
        example = outside[0].relative_to(root)
        log.warning("%s: labelled images that lie in no subset: %d, for example %s", root, len(outside), example)


def _labelled_outside(root: Path, places: list[Path]) -> list[Path]:
    """Images with a label file beside them that lie in none of the places."""
    outside = (path for path in image_files.find([root], root) if not any(map(path.is_relative_to, places)))
    return [path for path in outside if path.with_suffix(".txt").is_file()]


def _divided(root: Path) -> dict[str, list[Path]]:
    """The image folders of each subset, or nothing if no folder is named like one."""
    images = image_files.in_any_case(root / "images")
    found = {folder.name: [folder] for folder in _folders(images)} if images else {}
    for folder in _folders(root):
        if subsets.role(folder.name) and folder.name not in found:
            inside = image_files.in_any_case(folder / "images")
            if inside or image_files.find([folder], root):
                found[folder.name] = [inside or folder]
    return found if any(map(subsets.role, found)) else {}


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not image_files.is_hidden(path.name))


def _place(root: Path, entry: str, path: Path) -> Path:
    """A folder or list file named in a yaml. Raises UserError if it is not found."""
    found = _find(root, entry)
    if found is None:
        if not entry.isprintable():  # "images\train" holds a tab
            raise UserError(f"{path}: {entry!r} not found; in double quotes a backslash is an escape, use / instead")
        raise UserError(f"{path}: {entry!r} not found; searched {', '.join(map(str, _candidates(root, entry)))}")
    if Path(entry).is_absolute() and found != Path(entry):
        log.warning("%s: %s is not there; using %s instead", path, entry, found)
    return found


def _find(root: Path, entry: str) -> Path | None:
    return next((place for place in _candidates(root, entry) if os.path.exists(place)), None)  # noqa: PTH110


def _candidates(root: Path, entry: str) -> list[Path]:
    """Where a place named in a yaml may be.

    "../train" may mean "train" beside the yaml, as some tools export it. Of a path on another machine the end may lie
    in this dataset, if it names a subset.
    """
    candidates = []
    for spelling in dict.fromkeys(image_files.spellings(entry)):
        if spelling.startswith("../"):
            candidates.append(root / spelling[3:])
        candidates.append(root / spelling)
        parts = Path(spelling).parts
        ends = [parts[start:] for start in range(1, len(parts))] if Path(spelling).is_absolute() else []
        candidates += [root.joinpath(*end) for end in ends if any(map(subsets.role, end))]
    return candidates
