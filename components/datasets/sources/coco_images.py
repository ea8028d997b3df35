r"""Finds the image files that a COCO file names, on whatever machine and in whatever folder it was written.

A name may start with folders that are not there, with the root of another machine, a Windows drive or an address, and
may have "\" for "/" or %20 for a space.
"""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from urllib.parse import unquote

from yolo_core.errors import UserError

Parts = tuple[str, ...]
_ROOTS = re.compile(r"/|[A-Za-z][A-Za-z0-9+.-]*:")  # of a file system, of a drive or of an address


@dataclass(frozen=True)
class Images:
    """Image files by the name in the COCO file."""

    folder: Path
    """Folder that holds most of the images."""
    paths: dict[str, Path]
    """Where each is, or would be; without names that mean no file below the dataset."""


@dataclass(frozen=True)
class _Place:
    folder: Path
    dropped: Parts = ()
    """Leading folders that all names have and the disk has not."""

    def path(self, name: str) -> str:
        """The file of that name, or where it would be."""
        paths = [_join(self.folder, self._rest(parts)) for parts in _spellings(name) if _is_below(parts)]
        return paths[0] if len(paths) == 1 else next(filter(_is_file, paths), paths[0])

    def _rest(self, parts: Parts) -> Parts:
        count = len(self.dropped)
        return parts[count:] if parts[:count] == self.dropped else parts


def locate(root: Path, folders: Sequence[Path], names: Sequence[str]) -> Images:
    """Find the images. folders: where they may lie, by preference; root: the dataset's folder.

    Raises UserError listing the folders if none of them is there.
    """
    outside = [name for name in names if not _is_below(_parts(_slashed(name)))]
    skipped = set(outside)
    inside = [name for name in names if name not in skipped]
    existing = [folder for folder in folders if folder.is_dir()]
    place = _find_place(existing, inside)
    if place is None:
        other = next((folder for folder in existing if folder != root or outside), None)
        if other is None:
            searched = ", ".join(folder.relative_to(root).as_posix() for folder in folders)
            raise UserError(f"{root}: no image folder; searched {searched} below it")
        place = _Place(other)
    paths = {name: place.path(name) for name in inside}
    paths |= _by_their_ends(existing, outside, set(paths.values()) if outside else set())
    return Images(place.folder, {name: Path(path) for name, path in paths.items()})


def _find_place(folders: Sequence[Path], names: Sequence[str]) -> _Place | None:
    """The folder that holds most images; if none holds any, without the leading folders that all names share.

    One image is not enough: images/train/0.jpg may be another one than images/0.jpg.
    """
    shared = _shared(names)
    for count in range(len(shared) + 1):
        best, most = None, 0
        for folder in folders:
            place = _Place(folder, shared[:count])
            found = sum(_is_file(place.path(name)) for name in names)
            if found > most:
                best, most = place, found
            if found == len(names):
                break
        if best:
            return best
    return None


def _by_their_ends(folders: Sequence[Path], names: Sequence[str], taken: set[str]) -> dict[str, str]:
    """The files with the longest end of paths that point outside, unless another name means the same file."""
    found = {name: path for name in dict.fromkeys(names) if (path := _by_its_end(folders, name))}
    meant = Counter(found.values())
    return {name: path for name, path in found.items() if meant[path] == 1 and path not in taken}


def _by_its_end(folders: Sequence[Path], name: str) -> str | None:
    for parts in _spellings(name):
        below = max((k + 1 for k, part in enumerate(parts) if part == ".." or _ROOTS.fullmatch(part)), default=0)
        for start in range(below, len(parts)):
            paths = (_join(folder, parts[start:]) for folder in folders)
            if path := next(filter(_is_file, paths), None):
                return path
    return None


def _spellings(name: str) -> Iterator[Parts]:
    r"""The folders and file of a name: as written, with "/" for "\", with %20 decoded, in either form of Unicode."""
    spelled = [name]
    if "\\" in name:
        spelled.append(_slashed(name))
    if "%" in name:
        spelled += [unquote(one) for one in spelled]
    if not all(map(str.isascii, spelled)):
        spelled += [unicodedata.normalize(form, one) for one in spelled for form in ("NFC", "NFD")]
    return map(_parts, dict.fromkeys(spelled))


def _slashed(name: str) -> str:
    return name.replace("\\", "/")


def _parts(name: str) -> Parts:
    """The same as `PurePosixPath(name).parts`, in a fraction of its time."""
    root = ("/",) if name.startswith("/") else ()
    return (*root, *[part for part in name.split("/") if part not in ("", ".")])


def _join(folder: Path, parts: Parts) -> str:
    return "/".join((str(folder), *parts))


def _is_below(parts: Parts) -> bool:
    return bool(parts) and ".." not in parts and not _ROOTS.fullmatch(parts[0])


def _shared(names: Sequence[str]) -> Parts:
    """The leading folders of all names."""
    columns = zip(*(_parts(_slashed(name))[:-1] for name in names), strict=False)
    return tuple(parts[0] for parts in takewhile(lambda parts: len(set(parts)) == 1, columns))


def _is_file(path: str) -> bool:
    """False for names that no file can have, too."""
    return os.path.isfile(path)  # noqa: PTH113
