"""Weights to start from: a path, or an address in the web or the object store, with or without a checksum.

    model.safetensors
    https://host/yolov7.pt#sha256=HEX
    s3://bucket/model.safetensors#sha256=HEX

What is downloaded stays in `runs/weights`, in a folder named by its SHA-256: what is there already is not requested
again. Without a checksum the server is asked each time whether the file has changed.
"""

import hashlib
import json
import logging
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from components.storage.location import is_remote, is_safe
from components.workspace import WORK
from yolo_core.atomic import replaced, write_json
from yolo_core.errors import TryAgain, UserError
from yolo_core.locks import exclusive
from yolo_core.progress import Progress, silent

KEPT = WORK / "weights"
MARK = "#sha256="

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """Where weights are."""

    place: str
    """A path or an address."""
    sha256: str | None = None
    """SHA-256 (hex, lower case) that the file must have; None for any."""

    @classmethod
    def parse(cls, text: str) -> "Source":
        """Parse PLACE or PLACE#sha256=HEX. Raises UserError for another kind of address or a malformed checksum."""
        place, mark, digest = text.partition(MARK)
        source = cls(place, digest.lower() or None)
        if mark and not re.fullmatch(r"[0-9a-f]{64}", digest.lower()):
            raise UserError(f"{source}: {MARK}{digest}: expected the 64 hexadecimal digits of the file's SHA-256")
        if is_remote(place):
            source._check_address()
        return source

    def __str__(self) -> str:
        """The place without what may be secret in an address."""
        if not self.in_the_web:
            return self.place
        from components.storage.web import shown  # requests takes time

        return shown(self.place)

    @property
    def in_the_web(self) -> bool:
        return self.place.startswith(("https://", "http://"))

    @property
    def name(self) -> str:
        """The name of the file."""
        path = urlsplit(self.place).path if is_remote(self.place) else self.place
        return path.rpartition("/")[2]

    def pinned(self, digest: str) -> str:
        """The same place with a checksum, as text."""
        return f"{self.place}{MARK}{digest}"

    def _check_address(self) -> None:
        try:
            parts = urlsplit(self.place)
            whole = parts.hostname and parts.port != 0 and is_safe(self.name)
        except ValueError:
            whole = False
        if not whole or parts.scheme not in ("https", "http", "s3"):
            known = "a path, https://HOST/FILE or s3://BUCKET/FILE"
            raise UserError(f"{self.place.partition('?')[0]}: weights to start from are {known}")


def local_weights(text: str, progress: Progress = silent) -> Path:
    """The file that `text` names, see above: a path as it is, for an address a local copy.

    Raises UserError when there is no such file or it has another checksum, TryAgain when the network or the store is
    down.
    """
    source = Source.parse(text)
    if not is_remote(source.place):
        return _checked(Path(source.place), source)
    with exclusive(KEPT / ".lock"):
        if source.sha256 and (kept := _kept(source.sha256, source.name)):
            return kept
        return _from_web(source, progress) if source.in_the_web else _from_store(source, progress)


def _from_web(source: Source, progress: Progress) -> Path:
    from components.storage.web import Download, fetch

    place = hashlib.sha256(source.place.encode()).hexdigest()  # which may hold secrets
    record = KEPT / "addresses" / f"{place}.json"
    if source.sha256 is None and (known := _unchanged(source, record)):
        return known
    arriving = KEPT / "arriving" / place[:16] / source.name
    etag = fetch(Download(source.place, arriving, checksum=source.sha256, algorithm="sha256"), progress)
    digest = source.sha256 or _sha256(arriving)
    kept = _keep(arriving, digest, source.name)
    arriving.unlink()
    if source.sha256 is None:
        write_json(record, {"etag": etag, "sha256": digest})
        log.info("%s: downloaded; %s%s at its end makes sure of this content", source, MARK, digest)
    return kept


def _unchanged(source: Source, record: Path) -> Path | None:
    """The copy from an earlier download, if the server still has that content."""
    from components.storage.web import is_unchanged

    try:
        held = json.loads(record.read_bytes())
        etag, digest = held["etag"], held["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    kept = _kept(digest, source.name) if etag else None
    try:
        return kept if kept and is_unchanged(source.place, etag) else None
    except TryAgain as error:
        raise TryAgain(f"{error}; to use the copy of the last download, add {MARK}{digest} to the address") from None


def _from_store(source: Source, progress: Progress) -> Path:
    from components.storage.stage_paths import local_copy  # boto3 takes time

    copy = _checked(Path(local_copy(source.place, progress)), source)
    return _keep(copy, source.sha256, source.name) if source.sha256 else copy


def _checked(path: Path, source: Source) -> Path:
    """The file, if it has the checksum that it must have."""
    if source.sha256 is None:
        return path
    try:
        found = _sha256(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    if found != source.sha256:
        raise UserError(f"{source}: SHA-256 is {found}, {source.sha256} expected; correct the checksum or the place")
    return path


def _kept(digest: str, name: str) -> Path | None:
    """The intact copy of this content, under this name."""
    folder = KEPT / digest
    for path in sorted(folder.glob("*")):
        if _sha256(path) == digest:
            return path if path.name == name else _keep(path, digest, name)
        path.unlink()
    return None


def _keep(path: Path, digest: str, name: str) -> Path:
    """Put the file, which has this content, into its folder; it takes no second place on the disk."""
    target = KEPT / digest / name
    with replaced(target) as temporary:
        temporary.unlink()
        try:
            os.link(path, temporary)
        except OSError:  # the file system has no links
            shutil.copyfile(path, temporary)
    return target


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
