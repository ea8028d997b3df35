"""One file over HTTP: resumable across broken connections and across runs, checked by size and MD5."""

import hashlib
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from yolo_core.errors import UserError
from yolo_core.progress import Progress

CHUNK_BYTES = 1 << 20
TIMEOUT_S = 30.0
ATTEMPTS = 6  # without any byte of progress
BACKOFF_S = 1.0  # doubles with every attempt in a row


@dataclass(frozen=True)
class Download:
    """url; target: the file to make; size: bytes; md5: hex."""

    url: str
    target: Path
    size: int
    md5: str

    @property
    def partial(self) -> Path:
        """What has arrived so far."""
        return self.target.with_name(f"{self.target.name}.part")

    @property
    def validator(self) -> Path:
        """The ETag of the file that `partial` is the beginning of."""
        return self.target.with_name(f"{self.target.name}.part.etag")


class _Interrupted(Exception):
    """The connection failed in a way that may pass."""


def fetch(download: Download, progress: Progress) -> None:
    """Make the target file. One that is there with the right size was checked when it came and is kept.

    Raises UserError: the server refuses, the network stays away, or the content is not what it should be.
    """
    if download.target.is_file() and download.target.stat().st_size == download.size:
        return
    try:
        download.target.parent.mkdir(parents=True, exist_ok=True)
        _check_room(download)
        have = _have(download)
        mebibytes = max(1, (download.size - have) >> 20)
        for _ in progress(_chunks(download), f"download {download.target.name} (MiB)", total=mebibytes):
            pass
        _check_content(download, progress)
        download.partial.replace(download.target)
        download.validator.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{download.target}: cannot be written ({error.strerror or error})") from None


def _check_room(download: Download) -> None:
    free = shutil.disk_usage(download.target.parent).free
    needed = download.size - _have(download)
    if free < needed:
        raise UserError(
            f"{download.target.parent}: {free / 1e9:.1f} GB free, {download.target.name} needs {needed / 1e9:.1f} GB; "
            "set prepare.location to a folder with more room"
        )


def _have(download: Download) -> int:
    return download.partial.stat().st_size if download.partial.exists() else 0


def _chunks(download: Download) -> Iterator[int]:
    """Append to the partial file until it is complete, going on after every interruption; yields per chunk."""
    failures = 0
    while _have(download) < download.size:
        before = _have(download)
        try:
            yield from _attempt(download)
            reason = "the connection closed early"
        except _Interrupted as error:
            reason = str(error)
        if _have(download) > before:
            failures = 0
        elif _have(download) < download.size:
            failures += 1
        if failures >= ATTEMPTS:
            raise UserError(f"{download.url}: {reason}; run again to go on from {_have(download) / 1e6:.1f} MB")
        if failures:
            time.sleep(BACKOFF_S * 2 ** (failures - 1))


def _attempt(download: Download) -> Iterator[int]:
    """One request for what is missing; yields the bytes of each chunk appended."""
    offset = _have(download)
    headers = {"User-Agent": "scaled-yolov4"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
        if download.validator.exists():
            headers["If-Range"] = download.validator.read_text()
    try:
        response = urllib.request.urlopen(urllib.request.Request(download.url, headers=headers), timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # what we have is no beginning of what is there
            download.partial.unlink(missing_ok=True)
        elif error.code < 500 and error.code != 429:
            raise UserError(f"{download.url}: the server answers {error.code} {error.reason}") from None
        raise _Interrupted(f"the server answers {error.code} {error.reason}") from None
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
        raise _Interrupted(str(getattr(error, "reason", error))) from None
    with response:
        start = _start(response, offset)
        _check_announced(download, response, start)
        if start != offset or not offset:
            _remember_validator(download, response)
        yield from _append(download, response, start)


def _start(response: HTTPResponse, offset: int) -> int:
    """Where the answer begins: the offset asked for, or 0 where the server sends everything."""
    if response.status != 206:
        return 0
    announced = response.headers.get("Content-Range", "")
    if not announced.startswith(f"bytes {offset}-"):
        raise _Interrupted(f"unexpected Content-Range {announced!r}")
    return offset


def _check_announced(download: Download, response: HTTPResponse, start: int) -> None:
    length = response.headers.get("Content-Length")
    if length is None or start + int(length) == download.size:
        return
    found = start + int(length)
    raise UserError(f"{download.url}: {found} bytes on the server, {download.size} expected; is it the right mirror?")


def _remember_validator(download: Download, response: HTTPResponse) -> None:
    etag = response.headers.get("ETag", "")
    if etag and not etag.startswith("W/"):  # If-Range needs a strong one
        download.validator.write_text(etag)
    else:
        download.validator.unlink(missing_ok=True)


def _append(download: Download, response: HTTPResponse, start: int) -> Iterator[int]:
    with download.partial.open("r+b" if start else "wb") as file:
        file.seek(start)
        while True:
            try:
                chunk = response.read(CHUNK_BYTES)
            except (HTTPException, OSError) as error:
                raise _Interrupted(str(error) or type(error).__name__) from None
            if not chunk:
                return
            file.write(chunk)
            if file.tell() > download.size:
                raise UserError(f"{download.url}: sends more than the {download.size} bytes expected")
            yield len(chunk)


def _check_content(download: Download, progress: Progress) -> None:
    """Compare the MD5; a wrong file is removed, since going on from it would not help."""
    digest = hashlib.md5(usedforsecurity=False)
    total = max(1, download.size >> 20)
    with download.partial.open("rb") as file:
        for chunk in progress(iter(lambda: file.read(CHUNK_BYTES), b""), f"check {download.target.name}", total=total):
            digest.update(chunk)
    if digest.hexdigest() != download.md5:
        download.partial.unlink()
        download.validator.unlink(missing_ok=True)
        raise UserError(
            f"{download.url}: MD5 is {digest.hexdigest()}, {download.md5} expected; the file was removed, run again"
        )
