"""Fingerprints of a source's state, made without reading its files."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from yolo_core.errors import UserError


def fingerprint(lines: Iterable[str]) -> str:
    """SHA-256 (hex) of lines, in any order."""
    return hashlib.sha256("\n".join(sorted(lines)).encode(errors="surrogateescape")).hexdigest()


def file_times(root: Path) -> str | None:
    """The fingerprint of the path, size and time of every file of a folder; follows links.

    None if there are no files. Raises UserError if there is no folder.
    """
    if not root.is_dir():
        raise UserError(f"prepare.location = {root}: no such folder")
    lines = [f"{path.relative_to(root)} {stat.st_size} {stat.st_mtime_ns}" for path, stat in _files(root)]
    return fingerprint(lines) if lines else None


def _files(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    been = set()
    for folder, below, names in os.walk(root, followlinks=True):
        here = Path(folder).resolve()
        if here in been:  # a circular link
            below.clear()
            continue
        been.add(here)
        for name in names:
            path = Path(folder, name)
            if path.exists():  # not a dangling link
                yield path, path.stat()
