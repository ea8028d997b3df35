"""Downloads a file over HTTP: resumes after broken connections and across runs, verifies size and MD5."""

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import requests
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from yolo_core.errors import UserError
from yolo_core.progress import Progress

CHUNK_BYTES = 1 << 20
TIMEOUT_S = 30.0
ATTEMPTS = 8  # per run; the next run resumes
BACKOFF_S = 1.0  # doubles with each attempt
MAX_BACKOFF_S = 30.0


@dataclass(frozen=True)
class Download:
    """A file to download."""

    url: str
    target: Path
    """File to write."""
    size: int
    """Size in bytes."""
    md5: str
    """MD5, hex."""

    @property
    def partial(self) -> Path:
        """The bytes received so far."""
        return self.target.with_name(f"{self.target.name}.part")

    @property
    def validator(self) -> Path:
        """The ETag of the file that `partial` belongs to."""
        return self.target.with_name(f"{self.target.name}.part.etag")


class _Interrupted(Exception):
    """The transfer failed in a way that a retry may fix."""


def fetch(download: Download, progress: Progress) -> None:
    """Download the file. An existing one of the right size has been verified before and is kept.

    Raises UserError if the server refuses, the network stays down or the content is wrong.
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
    """Append to the partial file until it is complete, resuming after interruptions; yields once per chunk."""
    retrying = Retrying(
        retry=retry_if_exception_type(_Interrupted),
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_exponential(BACKOFF_S, max=MAX_BACKOFF_S),
        reraise=True,
    )
    try:
        for attempt in retrying:
            with attempt:
                yield from _attempt(download)
    except _Interrupted as error:
        raise UserError(f"{download.url}: {error}; run again to resume from {_have(download) / 1e6:.1f} MB") from None


def _attempt(download: Download) -> Iterator[int]:
    """Request what is missing; yields the size of each chunk appended."""
    offset = _have(download)
    if offset == download.size:
        return
    try:
        with requests.get(download.url, headers=_headers(download, offset), stream=True, timeout=TIMEOUT_S) as response:
            _check_status(download, response)
            start = _start(response, offset)
            _check_announced(download, response, start)
            if not start:
                _remember_validator(download, response)
            yield from _append(download, response, start)
    except requests.exceptions.ChunkedEncodingError:
        pass  # less arrived than announced
    except requests.RequestException as error:
        raise _Interrupted(_reason(error)) from None
    if _have(download) < download.size:
        raise _Interrupted("the connection closed early")


def _headers(download: Download, offset: int) -> dict[str, str]:
    headers = {"Accept-Encoding": "identity"}  # bytes as stored on the server, so that offsets match
    if offset:
        headers["Range"] = f"bytes={offset}-"
        if download.validator.exists():
            headers["If-Range"] = download.validator.read_text()
    return headers


def _check_status(download: Download, response: requests.Response) -> None:
    code = response.status_code
    if code < 400:
        return
    if code == 416:  # our partial file does not match
        download.partial.unlink(missing_ok=True)
    elif code < 500 and code != 429:
        raise UserError(f"{download.url}: the server answered {code} {response.reason}")
    raise _Interrupted(f"the server answered {code} {response.reason}")


def _reason(error: requests.RequestException) -> str:
    """The innermost cause, which requests wraps in several layers."""
    cause: BaseException = error
    while cause.__context__ is not None:
        cause = cause.__context__
    return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__


def _start(response: requests.Response, offset: int) -> int:
    """Where the answer begins: the requested offset, or 0 if the server sends everything."""
    if response.status_code != 206:
        return 0
    announced = response.headers.get("Content-Range", "")
    if not announced.startswith(f"bytes {offset}-"):
        raise _Interrupted(f"unexpected Content-Range {announced!r}")
    return offset


def _check_announced(download: Download, response: requests.Response, start: int) -> None:
    length = response.headers.get("Content-Length")
    if length is None or start + int(length) == download.size:
        return
    found = start + int(length)
    raise UserError(f"{download.url}: {found} bytes on the server, {download.size} expected; is it the right mirror?")


def _remember_validator(download: Download, response: requests.Response) -> None:
    etag = response.headers.get("ETag", "")
    if etag and not etag.startswith("W/"):  # If-Range needs a strong one
        download.validator.write_text(etag)
    else:
        download.validator.unlink(missing_ok=True)


def _append(download: Download, response: requests.Response, start: int) -> Iterator[int]:
    with download.partial.open("r+b" if start else "wb") as file:
        file.seek(start)
        for chunk in response.iter_content(CHUNK_BYTES):
            file.write(chunk)
            if file.tell() > download.size:
                raise UserError(f"{download.url}: sent more than the expected {download.size} bytes")
            yield len(chunk)


def _check_content(download: Download, progress: Progress) -> None:
    """Verify the MD5; a wrong file is removed, since resuming would not help."""
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
