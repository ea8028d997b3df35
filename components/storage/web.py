"""Downloads a file over HTTP: resumes after broken connections and across runs, verifies size and checksum."""

import hashlib
import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

import requests
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from yolo_core.errors import TryAgain, UserError
from yolo_core.progress import Progress

CHUNK_BYTES = 1 << 20
TIMEOUT_S = 30.0
ATTEMPTS = 8  # per run; the next run resumes
BACKOFF_S = 1.0  # doubles with each attempt
MAX_BACKOFF_S = 30.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Download:
    """A file to download."""

    url: str
    target: Path
    """File to write."""
    size: int | None = None
    """Size in bytes; None if only the server knows it."""
    checksum: str | None = None
    """Checksum of the content, hex; None if unknown."""
    algorithm: Literal["md5", "sha256"] = "md5"
    """How `checksum` was computed."""
    more_room: str = "free some space"
    """What to do when the disk has too little room."""

    @property
    def address(self) -> str:
        return shown(self.url)

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


def shown(url: str) -> str:
    """The address without what may be secret: user name, password and query, such as a signature."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def fetch(download: Download, progress: Progress) -> str | None:
    """Download the file, and return its ETag if the server gives a strong one.

    An existing file of the right size has been verified before and is kept. Raises UserError if the server refuses or
    the content is wrong, TryAgain if the network stays down.
    """
    if download.size is not None and download.target.is_file() and download.target.stat().st_size == download.size:
        return None
    try:
        download.target.parent.mkdir(parents=True, exist_ok=True)
        transfer = _Transfer(download)
        mebibytes = None if download.size is None else max(1, (download.size - transfer.have) >> 20)
        for _ in progress(transfer.chunks(), f"download {download.target.name} (MiB)", total=mebibytes):
            pass
        _check_content(download, progress)
        download.partial.replace(download.target)
        download.validator.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{download.target}: cannot be written ({error.strerror or error})") from None
    return transfer.etag


def is_unchanged(url: str, etag: str) -> bool:
    """Whether the file at the address still has this ETag. Raises as `fetch` does."""

    def ask() -> bool:
        headers = {"Accept-Encoding": "identity", "If-None-Match": etag}
        try:
            with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as response:
                _check_status(shown(url), response)
                return response.status_code == 304 or response.headers.get("ETag") == etag
        except requests.RequestException as error:
            raise _Interrupted(_reason(error, url)) from None

    try:
        return _retrying(shown(url))(ask)
    except _Interrupted as error:
        raise TryAgain(f"{shown(url)}: {error}") from None


def _retrying(address: str) -> Retrying:
    def say(state: RetryCallState) -> None:
        assert state.outcome
        assert state.next_action
        log.info("%s: %s; retrying in %.0f s", address, state.outcome.exception(), state.next_action.sleep)

    return Retrying(
        retry=retry_if_exception_type(_Interrupted),
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_exponential(BACKOFF_S, max=MAX_BACKOFF_S),
        before_sleep=say,
        reraise=True,
    )


class _Transfer:
    """A download under way."""

    def __init__(self, download: Download) -> None:
        self.download = download
        self.size = download.size
        self.etag: str | None = None
        if self.size is not None:
            self._check_room(self.size)

    @property
    def have(self) -> int:
        """Bytes received so far."""
        return self.download.partial.stat().st_size if self.download.partial.exists() else 0

    def chunks(self) -> Iterator[int]:
        """Append to the partial file until it is complete, resuming after interruptions; yields once per chunk."""
        try:
            for attempt in _retrying(self.download.address):
                with attempt:
                    yield from self._attempt()
        except _Interrupted as error:
            resume = f"run again to resume from {self.have / 1e6:.1f} MB"
            raise TryAgain(f"{self.download.address}: {error}; {resume}") from None

    def _attempt(self) -> Iterator[int]:
        """Request what is missing; yields the size of each chunk appended."""
        if self.download.checksum is None and not self.download.validator.exists():
            self.download.partial.unlink(missing_ok=True)  # nothing would reveal that the file changed in between
        offset, url = self.have, self.download.url
        if offset and offset == self.size:
            return
        try:
            with requests.get(url, headers=self._headers(offset), stream=True, timeout=TIMEOUT_S) as response:
                self._check_status(response)
                start = _start(response, offset)
                self._learn_size(response, start)
                self._remember_validator(response, start)
                yield from self._append(response, start)
        except requests.exceptions.ChunkedEncodingError:
            if self.size is None:
                raise _Interrupted("the connection closed early") from None
        except requests.RequestException as error:
            raise _Interrupted(_reason(error, url)) from None
        if self.size is not None and self.have < self.size:
            raise _Interrupted("the connection closed early")

    def _headers(self, offset: int) -> dict[str, str]:
        headers = {"Accept-Encoding": "identity"}  # bytes as stored on the server, so that offsets match
        if offset:
            headers["Range"] = f"bytes={offset}-"
            if self.download.validator.exists():
                headers["If-Range"] = self.download.validator.read_text()
        return headers

    def _check_status(self, response: requests.Response) -> None:
        if response.status_code == 416:  # our partial file does not match
            self.download.partial.unlink(missing_ok=True)
        _check_status(self.download.address, response)

    def _learn_size(self, response: requests.Response, start: int) -> None:
        """Compare the announced size with the expected one, or take it for that."""
        length = response.headers.get("Content-Length")
        if length is None:
            return
        announced = start + int(length)
        if self.download.size is None:
            self.size = announced
            self._check_room(announced)
        elif announced != self.download.size:
            raise UserError(
                f"{self.download.address}: {announced} bytes on the server, {self.download.size} expected; "
                "is it the right mirror?"
            )

    def _check_room(self, size: int) -> None:
        folder, needed = self.download.target.parent, size - self.have
        free = shutil.disk_usage(folder).free
        if free < needed:
            raise UserError(
                f"{folder}: {free / 1e9:.1f} GB free, {self.download.target.name} needs {needed / 1e9:.1f} GB; "
                f"{self.download.more_room}"
            )

    def _remember_validator(self, response: requests.Response, start: int) -> None:
        etag = response.headers.get("ETag", "")
        self.etag = etag if etag and not etag.startswith("W/") else None  # If-Range needs a strong one
        if start:
            return
        if self.etag:
            self.download.validator.write_text(self.etag)
        else:
            self.download.validator.unlink(missing_ok=True)

    def _append(self, response: requests.Response, start: int) -> Iterator[int]:
        with self.download.partial.open("r+b" if start else "wb") as file:
            file.seek(start)
            for chunk in response.iter_content(CHUNK_BYTES):
                file.write(chunk)
                if self.size is not None and file.tell() > self.size:
                    raise UserError(f"{self.download.address}: sent more than the expected {self.size} bytes")
                yield len(chunk)


def _check_status(address: str, response: requests.Response) -> None:
    code = response.status_code
    if code < 400:
        return
    if code < 500 and code not in (416, 429):
        raise UserError(f"{address}: the server answered {code} {response.reason}")
    raise _Interrupted(f"the server answered {code} {response.reason}")


def _reason(error: requests.RequestException, url: str) -> str:
    """The innermost cause, which requests wraps in several layers."""
    cause: BaseException = error
    while cause.__context__ is not None:
        cause = cause.__context__
    text = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return text.replace(url, shown(url))


def _start(response: requests.Response, offset: int) -> int:
    """Where the answer begins: the requested offset, or 0 if the server sends everything."""
    if response.status_code != 206:
        return 0
    announced = response.headers.get("Content-Range", "")
    if not announced.startswith(f"bytes {offset}-"):
        raise _Interrupted(f"unexpected Content-Range {announced!r}")
    return offset


def _check_content(download: Download, progress: Progress) -> None:
    """Verify the checksum; a wrong file is removed, since resuming would not help."""
    if download.checksum is None:
        return
    digest = hashlib.new(download.algorithm, usedforsecurity=False)
    total = max(1, download.partial.stat().st_size >> 20)
    with download.partial.open("rb") as file:
        for chunk in progress(iter(lambda: file.read(CHUNK_BYTES), b""), f"check {download.target.name}", total=total):
            digest.update(chunk)
    if digest.hexdigest() != download.checksum:
        download.partial.unlink()
        download.validator.unlink(missing_ok=True)
        name = {"md5": "MD5", "sha256": "SHA-256"}[download.algorithm]
        raise UserError(
            f"{download.address}: {name} is {digest.hexdigest()}, {download.checksum} expected; the file was removed, "
            "run again or correct the address or the checksum"
        )
