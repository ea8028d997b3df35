"""Addresses in the object store, s3://bucket/key. Imports nothing heavy: the command line uses it."""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from yolo_core.errors import UserError


@dataclass(frozen=True)
class Location:
    """An object, or everything below a prefix."""

    bucket: str
    key: str
    """Without slashes at its ends; empty for the whole bucket."""

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"

    def __truediv__(self, path: str) -> "Location":
        return Location(self.bucket, f"{self.key}/{path}" if self.key else path)

    @property
    def prefix(self) -> str:
        """The common prefix of all keys below."""
        return f"{self.key}/" if self.key else ""


def is_remote(text: str) -> bool:
    """Is this an address rather than a local path?"""
    return bool(re.match(r"\w+:/", text))


def parse(text: str) -> Location:
    """Parse s3://bucket/prefix; UserError for anything else, and for a prefix with ".."."""
    bucket, _, key = text.removeprefix("s3://").partition("/")
    if not text.startswith("s3://") or not bucket or bucket in (".", ".."):
        raise UserError(f"{text}: needs s3://bucket/prefix, or a local path")
    key = key.strip("/")
    if key and not is_safe(key):
        raise UserError(f"{text}: '..' is not allowed in a prefix, nor are empty parts and backslashes")
    return Location(bucket, key)


def path_or_location(text: "str | Path") -> "Path | Location":
    """A local path, or a location in the store; UserError for other addresses."""
    return parse(str(text)) if is_remote(str(text)) else Path(text)


def is_safe(path: str) -> bool:
    """Does a relative key, taken as a path, stay below its folder?"""
    parts = path.split("/")
    return not (PurePosixPath(path).is_absolute() or {"", ".", ".."} & set(parts) or "\\" in path or "\0" in path)
