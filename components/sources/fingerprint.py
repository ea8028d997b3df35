"""What tells one state of a source from another without reading its files."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from yolo_core.errors import UserError


def fingerprint(lines: Iterable[str]) -> str:
    """SHA-256 (hex) of lines in any order."""
    return hashlib.sha256("\n".join(sorted(lines)).encode(errors="surrogateescape")).hexdigest()


def file_times(root: Path) -> str:
    """The fingerprint of the path, size and time of every file of a folder; UserError where it is not there."""
    if not root.is_dir():
        raise UserError(f"prepare.location = {root}: no such folder")
    places = (Path(folder, name) for folder, _, names in os.walk(root) for name in names)
    found = ((path, path.lstat()) for path in places)
    return fingerprint(f"{path.relative_to(root)} {stat.st_size} {stat.st_mtime_ns}" for path, stat in found)
