"""Downloads one object: in parts, resumable after a kill, verified, in bounded memory.

It is written beside its target and renamed once its checksum matches. Finished parts stay on disk, and the next
download continues with them.
"""

import json
import math
import os
import shutil
from pathlib import Path

from botocore.client import BaseClient
from botocore.exceptions import ClientError

from components.storage.attempts import Damaged, retry_damaged
from components.storage.checksums import PART_BYTES, PARTS_AT_A_TIME, checksum, part_bytes
from components.storage.client import code
from components.storage.location import Location
from components.storage.objects import Object, head
from components.storage.threads import in_threads
from yolo_core.atomic import flush_file
from yolo_core.errors import TryAgain, UserError
from yolo_core.progress import Progress, silent


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
            raise Damaged("the bytes that arrived do not have the object's checksum")
        return held

    held = retry_damaged(location, receive)
    flush_file(partial)
    partial.replace(target)
    _discard(partial)
    return held


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
            data = retry_damaged(location, lambda: _range(client, location, held, start, min(part, held.size - start)))
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
        raise Damaged(f"{len(data)} of {length} bytes arrived")
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
