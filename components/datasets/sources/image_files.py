"""The images of a dataset on the disk: searched in folders, read from list files, and given a name each."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from components.datasets.sources import text_file
from yolo_core.errors import UserError

READ = frozenset(
    [
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".mpo", ".avif"),
        *(".ppm", ".pgm", ".pbm", ".pnm"),
    ]
)
"""Endings in lower case."""
NOT_READ = frozenset((".heic", ".heif", ".jp2", ".jxl"))
"""Quarantined by the image check."""
HIDDEN = frozenset(("@eaDir", "__MACOSX"))  # thumbnails of a Synology; what macOS adds to archives
DARKNETS = "data/"  # the folder that Darknet runs beside; exports keep it in lists, but do not have it
LONGEST = 255  # bytes of a file name
ROOM = 5  # bytes for another ending
LONGEST_PATH = 4096  # bytes
DIGEST = 8  # hex digits
KEPT_ENDINGS = (".jpg", ".jpeg", ".png")


def find(places: list[Path], root: Path) -> list[Path]:
    """All images in folders and list files, sorted, each file once. root: see `listed`."""
    files: dict[str, Path] = {}
    for place in places:
        for path in _in_folder(place) if place.is_dir() else listed(place, root):
            files.setdefault(os.path.abspath(path), path)  # noqa: PTH100
    return sorted(files.values())


def walk(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """The folder and all below it, each with the names of its files; hidden ones are skipped.

    Links are followed, except those to a folder above them. Raises UserError for an unreadable folder.
    """
    open_folders: list[tuple[Path, frozenset[str]]] = [(folder, frozenset())]
    while open_folders:
        here, above = open_folders.pop()
        real = os.path.realpath(here)
        if real in above:
            continue
        try:
            names = sorted(name for name in os.listdir(here) if not is_hidden(name))  # noqa: PTH208
        except OSError as error:
            raise UserError(f"{here}: cannot be read ({error.strerror})") from None
        below = [name for name in names if os.path.isdir(here / name)]  # noqa: PTH112
        open_folders += [(here / name, above | {real}) for name in reversed(below)]
        inside = set(below)
        yield here, [name for name in names if name not in inside]


def is_hidden(name: str) -> bool:
    return name.startswith(".") or name in HIDDEN


def _in_folder(folder: Path) -> Iterator[Path]:
    for here, names in walk(folder):
        stems = {name.rpartition(".")[0] for name in names if _ending(name) in READ}
        for name in names:
            if _ending(name) in READ or (_ending(name) in NOT_READ and name.rpartition(".")[0] not in stems):
                yield here / name


def lost_links(places: list[Path]) -> list[Path]:
    """Files in image folders that were, or are, links to folders that cannot be followed."""
    files = (here / name for place in places if place.is_dir() for here, names in walk(place) for name in names)
    return [path for path in files if _is_lost_link(path)]


def _is_lost_link(path: Path) -> bool:
    """A link to nothing, a shortcut of Windows, or the text that Git and archives leave of a link there."""
    if path.suffix:
        return path.suffix.lower() == ".lnk"
    if not path.is_file():
        return path.is_symlink()
    try:
        with path.open("rb") as file:
            target = file.read(LONGEST_PATH).decode().strip()
    except (OSError, UnicodeDecodeError):
        return False
    return "/" in target and "\n" not in target and os.path.isdir(path.parent / target)  # noqa: PTH112


def _ending(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122


def listed(file: Path, root: Path) -> Iterator[Path]:
    """The images that a list file names, a path a line, relative to the file or to the dataset's root."""
    for line in text_file.read_lines(file):
        if line:
            candidates = [folder / spelling for spelling in spellings(line) for folder in (file.parent, root)]
            candidates[:0] = [file.parent / line.removeprefix(DARKNETS)] if line.startswith(DARKNETS) else []
            yield next((path for path in candidates if os.path.exists(path)), candidates[-2])  # noqa: PTH110


def spellings(path: str) -> tuple[str, str]:
    r"""A path as written, and as Windows means it, with "/" for "\"."""
    return path, path.replace("\\", "/")


def in_any_case(path: Path) -> Path | None:
    """The folder at a path, ignoring case; None if there is none."""
    if os.path.isdir(path):  # noqa: PTH112
        return path
    above = path.parent if os.path.isdir(path.parent) else in_any_case(path.parent)  # noqa: PTH112
    if above is None or above == path:
        return None
    spelled = sorted(name for name in os.listdir(above) if name.lower() == path.name.lower())  # noqa: PTH208
    return next((above / name for name in spelled if os.path.isdir(above / name)), None)  # noqa: PTH112


def names(files: list[Path], places: list[Path], root: Path) -> list[str]:
    """A name for each file in the prepared folder: its path below its place, joined by "_".

    If that is too long or not unique, a digest of the path is added.
    """
    bases = [place if place.is_dir() else place.parent for place in places]
    joined = [_joined(path, bases) for path in files]
    counts = Counter(joined)
    return [
        name
        if counts[name] == 1 and _fits(name) and not _names_as_written(name) & counts.keys()
        else _with_digest(name, path, root)
        for name, path in zip(joined, files, strict=True)
    ]


def _joined(path: Path, bases: list[Path]) -> str:
    base = next((base for base in bases if path.is_relative_to(base)), path.parent)
    return "_".join(part for part in path.relative_to(base).parts if part != "..") or path.name


def _fits(name: str) -> bool:
    return len(os.fsencode(name)) <= LONGEST - (ROOM if _names_as_written(name) else 0)


def _names_as_written(name: str) -> set[str]:
    """The names that the image check may give it, which writes only JPEG and PNG."""
    return set() if name.lower().endswith(KEPT_ENDINGS) else {name + ending for ending in KEPT_ENDINGS}


def _with_digest(name: str, path: Path, root: Path) -> str:
    """The name with a digest of the path relative to the root, shortened at its start if it is too long."""
    digest = hashlib.sha256(os.fsencode(os.path.relpath(path, root))).hexdigest()[:DIGEST]
    stem, ending = os.path.splitext(name)  # noqa: PTH122
    end = os.fsencode(f"-{digest}{ending}")
    room = LONGEST - ROOM - len(end)
    kept = os.fsencode(stem)[-room:] if room > 0 else b""
    return kept.decode("utf-8", "ignore") + (f"-{digest}{ending}" if room > 0 else f"-{digest}")
