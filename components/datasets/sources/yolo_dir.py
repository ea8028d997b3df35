"""The source `yolo-dir`: image folders with one label file per image, described by a data.yaml or a classes.txt.

Looks like  images/{train,val}/*.jpg, labels/{train,val}/*.txt, classes.txt  or like a dataset yaml with
`path`, `train`, `val` (folders, lists of folders, or text files that list images) and `names`.
"""

import logging
import os
from pathlib import Path

from components import yaml_text
from components.datasets.raw import SPLITS, RawDataset, Resolved
from components.datasets.sources import image_files, text_file, yolo_names
from components.datasets.sources.fingerprint import file_times
from components.datasets.sources.yolo_labels import row_format
from components.datasets.sources.yolo_splits import Layout, read_splits
from components.params import Params
from yolo_core.errors import UserError
from yolo_core.progress import Progress

YAML_NAMES = ("data.yaml", "dataset.yaml", "data.yml", "dataset.yml")
FOLDERS = {"train": ("images/train", "train/images", "images/train2017"),
           "val": ("images/val", "images/valid", "valid/images", "val/images", "images/val2017")}  # fmt: skip
NOTHING = ("", "~", "null", "Null", "NULL")  # of YAML

log = logging.getLogger(__name__)


def load(params: Params, *, scratch: Path, downloads: Path, progress: Progress) -> RawDataset:
    """Read the layout at `prepare.location`, a folder or a dataset yaml."""
    return read(_location(params), progress)


def resolve(params: Params) -> Resolved:
    """By the sizes and times of the files; unknown with a dataset yaml, whose images may be anywhere."""
    location = _location(params)
    elsewhere = location.is_file() or any((location / name).is_file() for name in YAML_NAMES)
    return Resolved(None if elsewhere else file_times(location))


def _location(params: Params) -> Path:
    if not params.prepare.location:
        raise UserError("prepare.location: not set; source yolo-dir needs a folder or a dataset yaml")
    return Path(params.prepare.location).expanduser()


def is_layout(root: Path) -> bool:
    """Does `root` look like a YOLO layout?"""
    names = (*YAML_NAMES, "classes.txt")
    return any((root / name).is_file() for name in names) or (root / "labels").is_dir()


def read(location: Path, progress: Progress) -> RawDataset:
    """Read both splits of the layout. Raises UserError naming what was not found, and where."""
    return read_splits(_layout(location), progress)


def _layout(location: Path) -> Layout:
    if location.is_file():
        return _from_yaml(location)
    if not location.is_dir():
        raise UserError(f"prepare.location = {location}: no such folder or dataset yaml")
    for name in YAML_NAMES:
        if (location / name).is_file():
            return _from_yaml(location / name)
    classes = location / "classes.txt"
    if not classes.is_file():
        raise UserError(f"{location}: no class names; add classes.txt (one name per line) or data.yaml with names:")
    return Layout(location, yolo_names.from_lines(classes), {split: _usual(location, split) for split in SPLITS})


def _from_yaml(path: Path) -> Layout:
    document = yaml_text.parse_texts(text_file.read(path), str(path))
    if not isinstance(document, dict):
        raise UserError(f"{path}: expected keys such as train:, val: and names:")
    names, rows = yolo_names.from_document(document, path), row_format(document, path)
    root = _root(document.get("path"), path)
    images = {}
    for split, keys in {"train": ("train",), "val": ("val", "valid")}.items():
        entries = next((entries for key in keys if (entries := _entries(document.get(key)))), None)
        images[split] = _usual(root, split) if entries is None else [_place(root, entry, path) for entry in entries]
    return Layout(root, names, images, rows)


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


def _usual(root: Path, split: str) -> list[Path]:
    candidates = [root / name for name in FOLDERS[split]]
    found = [path for path in map(image_files.in_any_case, candidates) if path]
    if not found:
        raise UserError(f"{root}: no images for split {split!r}; searched {', '.join(map(str, candidates))}")
    return found[:1]


def _place(root: Path, entry: str, path: Path) -> Path:
    """A folder or list file named in a yaml; "../train" may mean "train" beside it, as some tools export it."""
    candidates = []
    for spelling in dict.fromkeys(image_files.spellings(entry)):
        if spelling.startswith("../"):
            candidates.append(root / spelling[3:])
        candidates.append(root / spelling)
    found = next((candidate for candidate in candidates if os.path.exists(candidate)), None)  # noqa: PTH110
    if found is None:
        if not entry.isprintable():  # "images\train" holds a tab
            raise UserError(f"{path}: {entry!r} not found; in double quotes a backslash is an escape, use / instead")
        raise UserError(f"{path}: {entry!r} not found; searched {', '.join(map(str, candidates))}")
    return found
