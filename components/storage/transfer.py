"""Uploads and downloads one file: in parts, resumable after a kill, verified, in bounded memory.

Every part is sent with its SHA-256, which the store checks; what the store then reports is compared with what was sent.
A download is written beside its target and renamed once its checksum matches. Finished parts are kept: an upload
resumes from the parts in the store, a download from the parts on disk.
(boto3's own transfer manager starts over after a kill, so only its client is used.)
"""

import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from botocore.client import BaseClient
from botocore.exceptions import (
    ClientError,
    FlexibleChecksumError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
)
from botocore.parsers import ResponseParserError
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential

from components.storage.checksums import PART_BYTES, as_text, checksum, digest, of_parts, part_bytes
from components.storage.client import code, is_transient
from components.storage.location import Location
from yolo_core.atomic import flush_file
from yolo_core.errors import TryAgain, UserError
from yolo_core.progress import Progress, silent

PARTS_AT_A_TIME = 4
ATTEMPTS = 5  # for transfers that broke off or arrived damaged
BACKOFF_S, MAX_BACKOFF_S = 0.5, 10.0

# Damaged in transit. The client retries refused requests, not those whose bytes went wrong. Headers have no checksum:
# a damaged one makes its reader fail with one of the last three.
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
    """The bytes that arrived differ from those sent, or the object changed during the transfer."""


@dataclass(frozen=True)
class Object:
    """An object as the store reports it."""

    size: int
    """Bytes."""
    etag: str
    """MD5 (hex) unless the store encrypts; of content sent in parts see `components.storage.checksums.of_parts`."""
    sha256: str | None
    """SHA-256 (base64), likewise for parts; None if it was never given."""
    encrypted: bool
    """The ETag is no MD5 then."""

    @property
    def in_parts(self) -> bool:
        return "-" in self.etag

    @classmethod
    def of(cls, answer: dict[str, Any], size: int) -> "Object":
        encrypted = "SSECustomerAlgorithm" in answer or answer.get("ServerSideEncryption", "").startswith("aws:kms")
        return cls(size, answer["ETag"].strip('"'), answer.get("ChecksumSHA256"), encrypted)


def upload(client: BaseClient, path: Path, location: Location, progress: Progress = silent) -> Object:
    """Upload a file and return the object as the store reports it.

    Raises TryAgain if the bytes keep arriving damaged; the store's own errors as botocore raises them.
    """
    large = path.stat().st_size > PART_BYTES
    return _retry_damaged(
        location, lambda: _send_parts(client, path, location, progress) if large else _send(client, path, location)
    )


def download(
    client: BaseClient, location: Location, target: Path, progress: Progress = silent, size: int | None = None
) -> Object:
    """Download an object to `target` and return it as the store reports it. size: as listed; saves a request.

    Raises TryAgain if the bytes keep arriving damaged, UserError if the object does not exist or does not fit on the
    disk; the store's own errors as botocore raises them.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.part")

    def receive() -> Object:
        held = None if size is not None and size <= PART_BYTES else head(client, location)
        if held and held.size > PART_BYTES:
            _receive_parts(client, location, held, partial, progress)
        else:
            held = _receive(client, location, partial)
        if not _matches(held, partial, _part_of(client, location, held)):
            _discard(partial)
            raise _Damaged("the bytes that arrived do not have the object's checksum")
        return held

    held = _retry_damaged(location, receive)
    flush_file(partial)
    partial.replace(target)
    _discard(partial)
    return held


def head(client: BaseClient, location: Location) -> Object | None:
    """The object there, or None."""
    try:
        answer = client.head_object(Bucket=location.bucket, Key=location.key, ChecksumMode="ENABLED")
    except ClientError as error:
        if code(error) == "404":
            return None
        raise
    return Object.of(answer, answer["ContentLength"])


def in_threads(function: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[R]:
    """Results in order, computed by a few threads; an error cancels what has not started."""
    with ThreadPoolExecutor(threads) as pool:
        try:
            yield from pool.map(function, items)
        finally:
            pool.shutdown(cancel_futures=True)


def _retry_damaged(location: Location, transfer: Callable[[], R]) -> R:
    """Retry, with backoff, what the client does not retry itself."""

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
        raise TryAgain(f"{location}: {error}, in {ATTEMPTS} attempts; check the network") from None


def _may_be_damage(error: BaseException) -> bool:
    """A request with a damaged header is refused in many ways; the client has already retried transient errors."""
    return isinstance(error, _Damaged) or (isinstance(error, ClientError) and not is_transient(error))


# Uploads


def _send(client: BaseClient, path: Path, location: Location) -> Object:
    """Upload a small file in one request."""
    data = path.read_bytes()
    md5, sha256 = as_text("md5", digest("md5", data)), as_text("sha256", digest("sha256", data))
    answer = client.put_object(Bucket=location.bucket, Key=location.key, Body=data, ChecksumSHA256=sha256)
    return _confirmed(Object.of(answer, len(data)), len(data), md5, sha256)


@dataclass(frozen=True)
class _Part:
    number: int
    """From 1."""
    etag: str
    md5: bytes
    sha256: bytes


def _send_parts(client: BaseClient, path: Path, location: Location, progress: Progress) -> Object:
    """Upload in parts, except for those that an earlier upload has left in the store."""
    size = path.stat().st_size
    part = part_bytes(size)
    key = {"Bucket": location.bucket, "Key": location.key}
    unfinished, existing = _unfinished(client, location)
    upload_id = unfinished or client.create_multipart_upload(**key, ChecksumAlgorithm="SHA256")["UploadId"]

    def send(number: int) -> _Part:
        with path.open("rb") as file:
            file.seek((number - 1) * part)
            data = file.read(part)
        md5, sha256 = digest("md5", data), digest("sha256", data)
        etag = existing.get(number, "")
        if etag != md5.hex():
            numbered = {"UploadId": upload_id, "PartNumber": number}
            etag = client.upload_part(**key, **numbered, Body=data, ChecksumSHA256=as_text("sha256", sha256))["ETag"]
        return _Part(number, etag, md5, sha256)

    count = math.ceil(size / part)
    sending = in_threads(send, range(1, count + 1), PARTS_AT_A_TIME)
    parts = list(progress(sending, f"upload {path.name} (parts)", count))
    listed = [
        {"PartNumber": part.number, "ETag": part.etag, "ChecksumSHA256": as_text("sha256", part.sha256)}
        for part in parts
    ]
    try:
        client.complete_multipart_upload(**key, UploadId=upload_id, MultipartUpload={"Parts": listed})
    except ClientError as error:
        if code(error) in _STALE_UPLOAD:
            _abort(client, location, upload_id)  # the next attempt begins a new one
        raise
    md5, sha256 = of_parts("md5", [part.md5 for part in parts]), of_parts("sha256", [part.sha256 for part in parts])
    return _confirmed(head(client, location), size, md5, sha256)


def _unfinished(client: BaseClient, location: Location) -> tuple[str | None, dict[int, str]]:
    """The newest unfinished upload of this object, and the ETags of its parts by number."""
    pages = client.get_paginator("list_multipart_uploads").paginate(Bucket=location.bucket, Prefix=location.key)
    begun = [
        upload
        for page in pages
        for upload in page.get("Uploads", [])
        if upload["Key"] == location.key and upload.get("ChecksumAlgorithm", "SHA256") == "SHA256"
    ]
    if not begun:
        return None, {}
    newest = max(begun, key=lambda upload: upload["Initiated"])["UploadId"]
    pages = client.get_paginator("list_parts").paginate(Bucket=location.bucket, Key=location.key, UploadId=newest)
    return newest, {part["PartNumber"]: part["ETag"].strip('"') for page in pages for part in page.get("Parts", [])}


def _abort(client: BaseClient, location: Location, upload_id: str) -> None:
    try:
        client.abort_multipart_upload(Bucket=location.bucket, Key=location.key, UploadId=upload_id)
    except ClientError as error:
        if code(error) != "NoSuchUpload":
            raise


def _confirmed(held: Object | None, size: int, md5: str, sha256: str) -> Object:
    """`held`, if it is what was sent."""
    if held is None:
        raise _Damaged("the store does not show the object after its upload")
    same = held.sha256 == sha256 if held.sha256 else held.encrypted or held.etag == md5
    if held.size != size or not same:
        raise _Damaged("the stored bytes differ from those sent")
    return held


# Downloads


def _receive(client: BaseClient, location: Location, partial: Path) -> Object:
    """Download a small object in one request."""
    try:
        answer = client.get_object(Bucket=location.bucket, Key=location.key, ChecksumMode="ENABLED")
    except ClientError as error:
        if code(error) == "NoSuchKey":
            raise UserError(f"{location}: no such object") from None
        raise
    partial.write_bytes(answer["Body"].read())
    return Object.of(answer, answer["ContentLength"])


def _receive_parts(client: BaseClient, location: Location, held: Object, partial: Path, progress: Progress) -> None:
    """Fill the partial file, except for the parts that an earlier download has left in it."""
    part = part_bytes(held.size)
    done = _parts_here(partial, held, part)
    free = shutil.disk_usage(partial.parent).free
    if free < held.size - len(done) * part:
        raise UserError(f"{partial.parent}: {free / 1e9:.1f} GB free, {location} needs {held.size / 1e9:.1f} GB")
    if not done:
        with partial.open("wb") as file:
            file.truncate(held.size)
        _record_of(partial).write_text(_header(held, part) + "\n", encoding="utf-8")
    wanted = [number for number in range(math.ceil(held.size / part)) if number not in done]
    with _record_of(partial).open("a", encoding="utf-8") as record, partial.open("r+b") as file:

        def fetch(number: int) -> int:
            start = number * part
            data = _retry_damaged(location, lambda: _range(client, location, held, start, min(part, held.size - start)))
            os.pwrite(file.fileno(), data, start)
            return number

        fetching = in_threads(fetch, wanted, PARTS_AT_A_TIME)
        for number in progress(fetching, f"download {location.key.rpartition('/')[2]} (parts)", len(wanted)):
            record.write(f"{number}\n")
            record.flush()


def _range(client: BaseClient, location: Location, held: Object, start: int, length: int) -> bytes:
    """Bytes of exactly this version of the object."""
    span = f"bytes={start}-{start + length - 1}"
    try:
        answer = client.get_object(Bucket=location.bucket, Key=location.key, Range=span, IfMatch=f'"{held.etag}"')
    except ClientError as error:
        if code(error) in ("PreconditionFailed", "412"):
            raise TryAgain(f"{location}: changed during the download; run again") from None
        raise
    data = answer["Body"].read()
    if len(data) != length:
        raise _Damaged(f"{len(data)} of {length} bytes arrived")
    return data


def _parts_here(partial: Path, held: Object, part: int) -> set[int]:
    """The parts of this very object that an earlier download has recorded."""
    try:
        header, *numbers = _record_of(partial).read_text(encoding="utf-8").splitlines()
        begun = header == _header(held, part) and partial.stat().st_size == held.size
        return {int(number) for number in numbers} if begun else set()
    except (OSError, ValueError):
        return set()


def _record_of(partial: Path) -> Path:
    """The file that records which parts have arrived."""
    return partial.with_name(f"{partial.name}s")


def _header(held: Object, part: int) -> str:
    return json.dumps([held.etag, held.size, part])


def _discard(partial: Path) -> None:
    for path in (partial, _record_of(partial)):
        path.unlink(missing_ok=True)


def _part_of(client: BaseClient, location: Location, held: Object) -> int | None:
    """The size of the parts that an object was sent in; None if it was sent in one piece."""
    if not held.in_parts:
        return None
    return client.head_object(Bucket=location.bucket, Key=location.key, PartNumber=1)["ContentLength"]


def _matches(held: Object, path: Path, part: int | None) -> bool:
    """Does the file have the object's content, as far as the store's checksums tell?"""
    if path.stat().st_size != held.size:
        return False
    if held.sha256:
        return checksum(path, "sha256", part) == held.sha256
    return held.encrypted or checksum(path, "md5", part) == held.etag
