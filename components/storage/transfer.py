"""One file to or from the store: in parts, resumable after a kill, verified, in bounded memory.

Every part is sent with its SHA-256, which the store checks; then what the store says it holds is compared with what
was sent. A download lands beside its target and is renamed when its checksum holds. What has travelled is kept: an
upload goes on from the parts the store has, a download from the parts that lie here.
(boto3's own transfer manager begins anew after a kill, so only its client is used.)
"""

import base64
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from botocore.exceptions import (
    ClientError,
    FlexibleChecksumError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
)
from botocore.parsers import ResponseParserError
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential

from components.storage.client import code, is_passing
from components.storage.location import Location
from yolo_core.atomic import flush_file
from yolo_core.errors import TryAgain, UserError
from yolo_core.progress import Progress, silent

MEBIBYTE = 1 << 20
PART_BYTES = 8 * MEBIBYTE  # objects up to this size travel in one request
MOST_PARTS = 10_000  # S3's limit of one object
PARTS_AT_A_TIME = 4
ATTEMPTS = 5  # of what broke off or came out wrong on its way
BACKOFF_S, MAX_BACKOFF_S = 0.5, 10.0

# Broken on the way: the client tries a refused request again, not one whose bytes went wrong. Nothing guards headers:
# over a damaged one whoever reads it stumbles, with the last three.
_BROKEN = (
    FlexibleChecksumError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
    ResponseParserError,
    ValueError,
    KeyError,
)
_BROKEN_CODES = {"BadDigest", "SignatureDoesNotMatch", "XAmzContentSHA256Mismatch"}
_STALE_UPLOAD = {"NoSuchUpload", "InvalidPart", "InvalidPartOrder", "EntityTooSmall", "InvalidRequest"}

R = TypeVar("R")
T = TypeVar("T")


class _Damaged(Exception):
    """Other bytes arrived than were sent, or the object is not the one that the transfer began with."""


@dataclass(frozen=True)
class Object:
    """What the store says it holds.

    etag: the MD5 (hex) unless the store encrypts, and sha256: SHA-256 (base64), None where it was never given. Content
    sent in N parts has the digest of the parts' digests instead, followed by -N.
    """

    size: int
    etag: str
    sha256: str | None
    encrypted: bool

    @property
    def in_parts(self) -> bool:
        return "-" in self.etag

    @classmethod
    def of(cls, answer: dict[str, Any], size: int) -> "Object":
        encrypted = "SSECustomerAlgorithm" in answer or answer.get("ServerSideEncryption", "").startswith("aws:kms")
        return cls(size, answer["ETag"].strip('"'), answer.get("ChecksumSHA256"), encrypted)


def upload(client: Any, path: Path, place: Location, progress: Progress = silent) -> Object:
    """Put a file there and return what the store then holds.

    Raises TryAgain when the bytes keep arriving damaged; the store's own errors as botocore raises them.
    """
    large = path.stat().st_size > PART_BYTES
    return _insisting(
        place, lambda: _send_parts(client, path, place, progress) if large else _send(client, path, place)
    )


def download(
    client: Any, place: Location, target: Path, progress: Progress = silent, size: int | None = None
) -> Object:
    """Make `target` the object's content and return what the store holds. size: as listed, spares a request.

    Raises TryAgain when the bytes keep arriving damaged, UserError when the object is not there or there is no room for
    it; the store's own errors as botocore raises them.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.part")

    def receive() -> Object:
        held = None if size is not None and size <= PART_BYTES else look(client, place)
        if held and held.size > PART_BYTES:
            _receive_parts(client, place, held, aside, progress)
        else:
            held = _receive(client, place, aside)
        if not _holds(held, aside, _part_of(client, place, held)):
            _forget(aside)
            raise _Damaged("the bytes that arrived do not have the object's checksum")
        return held

    held = _insisting(place, receive)
    flush_file(aside)
    aside.replace(target)
    _forget(aside)
    return held


def look(client: Any, place: Location) -> Object | None:
    """What lies there; None when nothing does."""
    try:
        answer = client.head_object(Bucket=place.bucket, Key=place.key, ChecksumMode="ENABLED")
    except ClientError as error:
        if code(error) == "404":
            return None
        raise
    return Object.of(answer, answer["ContentLength"])


def etag(path: Path) -> str:
    """The ETag that `upload` gives a file."""
    size = path.stat().st_size
    return _checksum(path, "md5", part_bytes(size) if size > PART_BYTES else None)


def part_bytes(size: int) -> int:
    """The size of the parts of an object: 8 MiB, more where there would be too many."""
    return max(PART_BYTES, math.ceil(size / MOST_PARTS / MEBIBYTE) * MEBIBYTE)


def in_threads(function: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[R]:
    """Results in order, computed by a few threads; an error stops what has not begun."""
    with ThreadPoolExecutor(threads) as pool:
        try:
            yield from pool.map(function, items)
        finally:
            pool.shutdown(cancel_futures=True)


def _insisting(place: Location, transfer: Callable[[], R]) -> R:
    """Do it again after what the client does not try again by itself."""

    def attempt() -> R:
        try:
            return transfer()
        except _BROKEN as error:
            raise _Damaged(str(error)) from None
        except ClientError as error:
            if code(error) in _BROKEN_CODES | _STALE_UPLOAD:
                raise _Damaged(str(error)) from None
            raise

    retrying = Retrying(
        retry=retry_if_exception(_may_be_damage),
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_exponential(BACKOFF_S, max=MAX_BACKOFF_S),
        reraise=True,
    )
    try:
        return retrying(attempt)
    except _Damaged as error:
        raise TryAgain(f"{place}: {error}, {ATTEMPTS} times; check the network") from None


def _may_be_damage(error: BaseException) -> bool:
    """A request with a damaged header is refused in many ways; what passes the client has tried again by itself."""
    return isinstance(error, _Damaged) or (isinstance(error, ClientError) and not is_passing(error))


# Up


def _send(client: Any, path: Path, place: Location) -> Object:
    data = path.read_bytes()
    md5, sha256 = (_summary(name, [_digest(name, data)], in_parts=False) for name in ("md5", "sha256"))
    answer = client.put_object(Bucket=place.bucket, Key=place.key, Body=data, ChecksumSHA256=sha256)
    return _confirmed(Object.of(answer, len(data)), len(data), md5, sha256)


@dataclass(frozen=True)
class _Part:
    number: int
    etag: str
    md5: bytes
    sha256: bytes


def _send_parts(client: Any, path: Path, place: Location, progress: Progress) -> Object:
    """Upload in parts, except those that an earlier upload has left there."""
    size = path.stat().st_size
    part = part_bytes(size)
    key = {"Bucket": place.bucket, "Key": place.key}
    unfinished, there = _unfinished(client, place)
    upload_id = unfinished or client.create_multipart_upload(**key, ChecksumAlgorithm="SHA256")["UploadId"]

    def send(number: int) -> _Part:
        with path.open("rb") as file:
            file.seek((number - 1) * part)
            data = file.read(part)
        md5, sha256 = _digest("md5", data), _digest("sha256", data)
        if there.get(number) != md5.hex():
            numbered = {"UploadId": upload_id, "PartNumber": number}
            answer = client.upload_part(**key, **numbered, Body=data, ChecksumSHA256=_text("sha256", sha256))
            return _Part(number, answer["ETag"], md5, sha256)
        return _Part(number, there[number], md5, sha256)

    count = math.ceil(size / part)
    sending = in_threads(send, range(1, count + 1), PARTS_AT_A_TIME)
    parts = list(progress(sending, f"upload {path.name} (parts)", count))
    md5, sha256 = (_summary(name, [getattr(part, name) for part in parts], in_parts=True) for name in ("md5", "sha256"))
    listed = [
        {"PartNumber": part.number, "ETag": part.etag, "ChecksumSHA256": _text("sha256", part.sha256)} for part in parts
    ]
    try:
        client.complete_multipart_upload(**key, UploadId=upload_id, MultipartUpload={"Parts": listed})
    except ClientError as error:
        if code(error) not in _STALE_UPLOAD:
            raise
        _abandon(client, place, upload_id)  # the next attempt begins a new one
        raise
    return _confirmed(look(client, place), size, md5, sha256)


def _unfinished(client: Any, place: Location) -> tuple[str | None, dict[int, str]]:
    """The newest upload of this object that was begun and not ended, and the ETags of its parts by number."""
    pages = client.get_paginator("list_multipart_uploads").paginate(Bucket=place.bucket, Prefix=place.key)
    begun = [
        upload
        for page in pages
        for upload in page.get("Uploads", [])
        if upload["Key"] == place.key and upload.get("ChecksumAlgorithm", "SHA256") == "SHA256"
    ]
    if not begun:
        return None, {}
    newest = max(begun, key=lambda upload: upload["Initiated"])["UploadId"]
    pages = client.get_paginator("list_parts").paginate(Bucket=place.bucket, Key=place.key, UploadId=newest)
    return newest, {part["PartNumber"]: part["ETag"].strip('"') for page in pages for part in page.get("Parts", [])}


def _abandon(client: Any, place: Location, upload_id: str) -> None:
    try:
        client.abort_multipart_upload(Bucket=place.bucket, Key=place.key, UploadId=upload_id)
    except ClientError as error:
        if code(error) != "NoSuchUpload":
            raise


def _confirmed(held: Object | None, size: int, md5: str, sha256: str) -> Object:
    """`held` when it is what was sent."""
    if held is None:
        raise _Damaged("the store does not show the object after its upload")
    same = held.sha256 == sha256 if held.sha256 else held.encrypted or held.etag == md5
    if held.size != size or not same:
        raise _Damaged("the store holds other bytes than were sent")
    return held


# Down


def _receive(client: Any, place: Location, aside: Path) -> Object:
    """Get a small object in one request."""
    try:
        answer = client.get_object(Bucket=place.bucket, Key=place.key, ChecksumMode="ENABLED")
    except ClientError as error:
        if code(error) == "NoSuchKey":
            raise UserError(f"{place}: no such object") from None
        raise
    aside.write_bytes(answer["Body"].read())
    return Object.of(answer, answer["ContentLength"])


def _receive_parts(client: Any, place: Location, held: Object, aside: Path, progress: Progress) -> None:
    """Fill the file beside the target, except for the parts that an earlier download has left in it."""
    part = part_bytes(held.size)
    done = _parts_here(aside, held, part)
    free = shutil.disk_usage(aside.parent).free
    if free < held.size - len(done) * part:
        raise UserError(f"{aside.parent}: {free / 1e9:.1f} GB free, {place} needs {held.size / 1e9:.1f} GB")
    if not done:
        with aside.open("wb") as file:
            file.truncate(held.size)
        _notes(aside).write_text(_header(held, part) + "\n", encoding="utf-8")
    wanted = [number for number in range(math.ceil(held.size / part)) if number not in done]
    with _notes(aside).open("a", encoding="utf-8") as notes, aside.open("r+b") as file:

        def fetch(number: int) -> int:
            start = number * part
            data = _insisting(place, lambda: _range(client, place, held, start, min(part, held.size - start)))
            os.pwrite(file.fileno(), data, start)
            return number

        fetching = in_threads(fetch, wanted, PARTS_AT_A_TIME)
        for number in progress(fetching, f"download {place.key.rpartition('/')[2]} (parts)", len(wanted)):
            notes.write(f"{number}\n")
            notes.flush()


def _range(client: Any, place: Location, held: Object, start: int, length: int) -> bytes:
    """Bytes of exactly this version of the object."""
    span = f"bytes={start}-{start + length - 1}"
    try:
        answer = client.get_object(Bucket=place.bucket, Key=place.key, Range=span, IfMatch=f'"{held.etag}"')
    except ClientError as error:
        if code(error) in ("PreconditionFailed", "412"):
            raise TryAgain(f"{place}: changed while it was fetched; run again") from None
        raise
    data = answer["Body"].read()
    if len(data) != length:
        raise _Damaged(f"{len(data)} bytes arrived of {length}")
    return data


def _parts_here(aside: Path, held: Object, part: int) -> set[int]:
    """The parts of this very object that an earlier download has noted."""
    try:
        header, *numbers = _notes(aside).read_text(encoding="utf-8").splitlines()
        begun = header == _header(held, part) and aside.stat().st_size == held.size
        return {int(number) for number in numbers} if begun else set()
    except (OSError, ValueError):
        return set()


def _notes(aside: Path) -> Path:
    """Where it is noted which parts have arrived."""
    return aside.with_name(f"{aside.name}s")


def _header(held: Object, part: int) -> str:
    return json.dumps([held.etag, held.size, part])


def _forget(aside: Path) -> None:
    for path in (aside, _notes(aside)):
        path.unlink(missing_ok=True)


# Checksums


def _part_of(client: Any, place: Location, held: Object) -> int | None:
    """The size of the parts an object was sent in; None when it came in one."""
    if not held.in_parts:
        return None
    return client.head_object(Bucket=place.bucket, Key=place.key, PartNumber=1)["ContentLength"]


def _holds(held: Object, path: Path, part: int | None) -> bool:
    """Is the file's content the object's, as far as the store gives checksums?"""
    if path.stat().st_size != held.size:
        return False
    if held.sha256:
        return _checksum(path, "sha256", part) == held.sha256
    return held.encrypted or _checksum(path, "md5", part) == held.etag


def _checksum(path: Path, name: str, part: int | None) -> str:
    with path.open("rb") as file:
        if part is None:
            whole = hashlib.file_digest(file, lambda: hashlib.new(name, usedforsecurity=False)).digest()
            return _summary(name, [whole], in_parts=False)
        return _summary(name, [_digest(name, data) for data in iter(lambda: file.read(part), b"")], in_parts=True)


def _summary(name: str, digests: list[bytes], in_parts: bool) -> str:
    """S3's checksum of content: its digest, or of content in parts the digest of their digests and their number."""
    if not in_parts:
        return _text(name, digests[0])
    return f"{_text(name, _digest(name, b''.join(digests)))}-{len(digests)}"


def _digest(name: str, data: bytes) -> bytes:
    return hashlib.new(name, data, usedforsecurity=False).digest()


def _text(name: str, digest: bytes) -> str:
    return digest.hex() if name == "md5" else base64.b64encode(digest).decode()
