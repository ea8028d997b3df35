"""What tells one state of a source from another without reading its files."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from yolo_core.errors import UserError


def fingerprint(lines: Iterable[str]) -> str:
    """SHA-256 (hex) of lines in any order."""
    return hashlib.sha256("\n".join(sorted(lines)).encode(errors="surrogateescape")).hexdigest()


def file_times(root: Path) -> str | None:
    """The fingerprint of the path, size and time of every file of a folder, linked ones included.

    None where there is no file at all; UserError where there is no folder.
    """
    if not root.is_dir():
        raise UserError(f"prepare.location = {root}: no such folder")
    lines = [f"{path.relative_to(root)} {stat.st_size} {stat.st_mtime_ns}" for path, stat in _files(root)]
    return fingerprint(lines) if lines else None


def _files(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    been = set()
    for folder, below, names in os.walk(root, followlinks=True):
        here = Path(folder).resolve()
        if here in been:  # a link that leads back
            below.clear()
            continue
        been.add(here)
        for name in names:
            path = Path(folder, name)
            if path.exists():  # a link may lead nowhere
                yield path, path.stat()
