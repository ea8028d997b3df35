"""S3's checksums of a file: the digest of its content or, if sent in parts, the digest of the parts' digests."""

import base64
import hashlib
import math
from pathlib import Path
from typing import Literal

MEBIBYTE = 1 << 20
PARTS_AT_A_TIME = 4
PART_BYTES = 8 * MEBIBYTE  # objects up to this size are sent in one request
MOST_PARTS = 10_000  # S3's limit per object

Algorithm = Literal["md5", "sha256"]


def etag(path: Path) -> str:
    """The ETag of a file once `components.storage.upload.upload` has sent it."""
    size = path.stat().st_size
    return checksum(path, "md5", part_bytes(size) if size > PART_BYTES else None)


def part_bytes(size: int) -> int:
    """Part size for an object of `size` bytes: 8 MiB, or more if that would make too many parts."""
    return max(PART_BYTES, math.ceil(size / MOST_PARTS / MEBIBYTE) * MEBIBYTE)


def checksum(path: Path, algorithm: Algorithm, part: int | None) -> str:
    """S3's checksum of a file sent in parts of `part` bytes, or in one piece if None. Reads one part at a time."""
    with path.open("rb") as file:
        if part is None:
            return as_text(
                algorithm, hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).digest()
            )
        return of_parts(algorithm, [digest(algorithm, data) for data in iter(lambda: file.read(part), b"")])


def of_parts(algorithm: Algorithm, digests: list[bytes]) -> str:
    """S3's checksum of an object sent in parts: the digest of the parts' digests, then -N for N parts."""
    return f"{as_text(algorithm, digest(algorithm, b''.join(digests)))}-{len(digests)}"


def digest(algorithm: Algorithm, data: bytes) -> bytes:
    return hashlib.new(algorithm, data, usedforsecurity=False).digest()


def as_text(algorithm: Algorithm, value: bytes) -> str:
    """A digest as S3 writes it: MD5 in hex, SHA-256 in base64."""
    return value.hex() if algorithm == "md5" else base64.b64encode(value).decode()
