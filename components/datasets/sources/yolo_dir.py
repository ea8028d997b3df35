"""The source `yolo-dir`: image folders with one label file per image, described by a data.yaml or a classes.txt.

Looks like  images/{train,val}/*.jpg, labels/{train,val}/*.txt, classes.txt  or like a dataset yaml with
`path`, `train`, `val` (folders, lists of folders, or text files that list images) and `names`.
"""

from dataclasses import dataclass
from pathlib import Path

from components import yaml_text
from components.datasets.raw import SPLITS, Category, Quarantined, RawBox, RawDataset, RawImage, RawSplit, Resolved
from components.datasets.sources.fingerprint import file_times
from components.datasets.sources.yolo_labels import parse
from components.params import Params
from yolo_core.errors import UserError
from yolo_core.progress import Progress

YAML_NAMES = ("data.yaml", "dataset.yaml", "data.yml", "dataset.yml")
FOLDERS = {"train": ("images/train", "train/images", "images/train2017"),
           "val": ("images/val", "images/valid", "valid/images", "val/images", "images/val2017")}  # fmt: skip
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".mpo"}
NO_LABELS = {"classes.txt", "labels.txt", "notes.txt", "train.txt", "val.txt", "test.txt"}


@dataclass(frozen=True)
class _Layout:
    """A dataset found on the disk."""

    root: Path
    """Paths in reports are relative to it."""
    names: dict[int, str]
    """Class names by index."""
    images: dict[str, list[Path]]
    """Image folders and list files by split."""


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
    layout = _layout(location)
    categories: list[Category] = [{"id": index, "name": name} for index, name in sorted(layout.names.items())]
    return RawDataset(categories, {split: _split(split, layout, progress) for split in SPLITS})


def _layout(location: Path) -> _Layout:
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
    lines = [line.strip() for line in _text(classes).split("\n")]
    names = dict(enumerate(line for line in lines if line))
    return _Layout(location, _checked_names(names, classes), {split: _usual(location, split) for split in SPLITS})


def _from_yaml(path: Path) -> _Layout:
    document = yaml_text.parse(_text(path), str(path))
    if not isinstance(document, dict):
        raise UserError(f"{path}: expected keys such as train:, val: and names:")
    names = document.get("names")
    if isinstance(names, list):
        names = dict(enumerate(names))
    folder = path.parent
    root = folder / str(document.get("path") or "")
    root = root if root.is_dir() else folder
    images = {}
    for split, keys in {"train": ("train",), "val": ("val", "valid")}.items():
        value = next((document[key] for key in keys if document.get(key)), None)
        entries = value if isinstance(value, list) else [value]
        images[split] = _usual(root, split) if value is None else [_place(root, str(entry), path) for entry in entries]
    return _Layout(root, _checked_names(names, path), images)


def _checked_names(names: object, path: Path) -> dict[int, str]:
    if not isinstance(names, dict) or not names:
        raise UserError(f"{path}: no class names; give names: as a list, or as index: name")
    for index, name in names.items():
        if not isinstance(index, int) or index < 0 or not str(name).strip():
            raise UserError(f"{path}: names: entry {index!r}: {name!r}: expected a whole number from 0, and a name")
    return {index: str(name) for index, name in names.items()}


def _usual(root: Path, split: str) -> list[Path]:
    candidates = [root / name for name in FOLDERS[split]]
    found = [path for path in candidates if path.is_dir()][:1]
    if not found:
        raise UserError(f"{root}: no images for split {split!r}; searched {', '.join(map(str, candidates))}")
    return found


def _place(root: Path, entry: str, path: Path) -> Path:
    """A folder or list file named in a yaml; "../train" may mean "train" beside it, as some tools export it."""
    candidates = [root / entry] + ([root / entry[3:]] if entry.startswith("../") else [])
    found = next((candidate for candidate in candidates if candidate.exists()), None)
    if found is None:
        raise UserError(f"{path}: {entry!r} not found; searched {', '.join(map(str, candidates))}")
    return found


def _split(split: str, layout: _Layout, progress: Progress) -> RawSplit:
    raw = RawSplit([], [], fractions=True)
    files = _image_files(layout.images[split])
    if not files:
        raise UserError(f"{', '.join(map(str, layout.images[split]))}: no images for split {split!r}")
    bases = _bases(layout.images[split])
    for image_id, path in enumerate(progress(files, f"read {split} labels", total=len(files)), 1):
        raw.images.append(RawImage(image_id, _flat_name(path, bases), path))
        _read_labels(split, image_id, _label_file(path), layout.root, raw)
    _quarantine_orphans(split, files, layout.root, raw)
    return raw


def _image_files(paths: list[Path]) -> list[Path]:
    """All image files in the folders and list files, sorted and once each."""
    files: set[Path] = set()
    for path in paths:
        if path.is_dir():
            files |= {file for file in path.rglob("[!.]*") if file.suffix.lower() in SUFFIXES}
        else:
            lines = (line.strip() for line in _text(path).split("\n"))
            files |= {path.parent / line for line in lines if line}
    return sorted(files)


def _bases(paths: list[Path]) -> list[Path]:
    return [path if path.is_dir() else path.parent for path in paths]


def _flat_name(path: Path, bases: list[Path]) -> str:
    """The name in the prepared folder: the path below its image folder, joined by "_"."""
    base = next((base for base in bases if path.is_relative_to(base)), path.parent)
    return "_".join(part for part in path.relative_to(base).parts if part != "..")


def _label_file(image: Path) -> Path:
    """The label file of an image: the last folder "images" becomes "labels"; without one it is beside the image."""
    parts = list(image.parts)
    for position in range(len(parts) - 2, -1, -1):
        if parts[position] == "images":
            parts[position] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _read_labels(split: str, image_id: int, path: Path, root: Path, raw: RawSplit) -> None:
    if not path.is_file():
        return  # a background image
    where = _shown(path, root)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raw.quarantined.append(Quarantined(split, "box", where, f"unreadable label file: {error}"))
        return
    lines, bad = parse(text)
    raw.quarantined += [Quarantined(split, "box", f"{where}:{number}", problem) for number, problem in bad]
    raw.boxes += [RawBox(None, image_id, line.class_index, line.xywh, f"{where}:{line.number}") for line in lines]


def _quarantine_orphans(split: str, images: list[Path], root: Path, raw: RawSplit) -> None:
    """Quarantine label files that belong to no image."""
    labels = {_label_file(image) for image in images}
    folders = {label.parent for label in labels} - {image.parent for image in images}
    for folder in sorted(folder for folder in folders if folder.is_dir()):
        for path in sorted(folder.glob("*.txt")):
            if path not in labels and path.name not in NO_LABELS:
                raw.quarantined.append(Quarantined(split, "image", _shown(path, root), "missing file: no image for it"))


def _shown(path: Path, root: Path) -> str:
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()


def _text(path: Path) -> str:
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: not a file")
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
