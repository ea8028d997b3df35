"""Uploads one file: in parts, resumable after a kill, verified, in bounded memory.

Every part is sent with its SHA-256, which the store checks; what the store then reports is compared with what was sent.
Finished parts stay in the store, and the next upload continues with them.
(boto3's own transfer manager starts over after a kill, so only its client is used.)
"""

import math
from dataclasses import dataclass
from pathlib import Path

from botocore.client import BaseClient
from botocore.exceptions import ClientError

from components.storage.attempts import STALE_UPLOAD, Damaged, retry_damaged
from components.storage.checksums import PART_BYTES, PARTS_AT_A_TIME, as_text, digest, of_parts, part_bytes
from components.storage.client import code
from components.storage.location import Location
from components.storage.objects import Object, head
from components.storage.threads import in_threads
from yolo_core.progress import Progress, silent


def upload(client: BaseClient, path: Path, location: Location, progress: Progress = silent) -> Object:
    """Upload a file and return the object as the store reports it.

    Raises TryAgain if the bytes keep arriving damaged; the store's own errors as botocore raises them.
    """
    large = path.stat().st_size > PART_BYTES
    return retry_damaged(
        location, lambda: _send_parts(client, path, location, progress) if large else _send(client, path, location)
    )


def _send(client: BaseClient, path: Path, location: Location) -> Object:
    """Upload a small file in one request."""
    data = path.read_bytes()
    md5, sha256 = as_text("md5", digest("md5", data)), as_text("sha256", digest("sha256", data))
    answer = client.put_object(Bucket=location.bucket, Key=location.key, Body=data, ChecksumSHA256=sha256)
    return _confirmed(Object.of(answer, len(data)), len(data), md5, sha256)


@dataclass(frozen=True)
class _Part:
    number: int
    """Part number, from 1."""
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
        if code(error) in STALE_UPLOAD:
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
        raise Damaged("the store does not show the object after its upload")
    same = held.sha256 == sha256 if held.sha256 else held.encrypted or held.etag == md5
    if held.size != size or not same:
        raise Damaged("the stored bytes differ from those sent")
    return held
