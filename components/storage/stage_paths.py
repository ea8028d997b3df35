"""Runs stages whose paths are in the store: inputs become local copies, results are uploaded when the stage has ended.

A finished result that could not be uploaded waits in the outbox: `deliver_all` (the command `sync`) uploads it later,
and the same stage on the same inputs uploads it instead of computing it again.
"""

import contextlib
import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from components.monitoring.periodic import periodically
from components.params import Params
from components.storage import checksums, folder
from components.storage.client import check_writable, connect, reaching
from components.storage.download import download
from components.storage.location import Location, is_remote, parse
from components.storage.objects import head
from components.storage.upload import upload
from components.workspace import STORE, outbox
from yolo_core.atomic import write_json
from yolo_core.errors import TryAgain, UserError
from yolo_core.progress import Progress, silent

RESULT, UNFINISHED = "out", "work"  # the options that a stage writes to; it only reads the others
MIRROR_EVERY_S = 30.0

log = logging.getLogger(__name__)

Summary = Mapping[str, object]  # what a stage returns


def run(
    name: str, stage: Callable[..., Summary], params: Params, arguments: dict[str, object], progress: Progress
) -> Summary:
    """Run a stage whose arguments may be addresses (s3://...) on local copies; returns what the stage returns.

    Raises UserError if an input does not exist, TryAgain if the store is unavailable; a finished result is kept then.
    """
    arguments = {key: _parsed(value) for key, value in arguments.items()}
    local = {key: _localised(key, value, progress) for key, value in arguments.items()}
    with _mirrored(arguments.get(UNFINISHED)):
        destination = arguments.get(RESULT)
        if not isinstance(destination, Location):
            return stage(params, progress=progress, **local)
        pending = _PendingUpload.to(destination)
        identity = _identity(name, params, local)
        if not pending.is_finished(identity):
            with reaching(destination):
                check_writable(connect(), destination)
            result = stage(params, progress=progress, **{**local, RESULT: pending.emptied()})
            pending.finish(identity, result)
        return pending.upload(progress)


def local_copy(path: str, progress: Progress = silent) -> str:
    """A local path unchanged; for an address in the store, the path of an up-to-date local copy."""
    return str(_fetched(parse(path), progress)) if is_remote(path) else path


def deliver_all(progress: Progress) -> list[str]:
    """Upload every finished result in the outbox; returns their addresses. Raises TryAgain at the first failure."""
    locations = []
    for record in sorted((outbox() / "results").glob(f"*/{_PendingUpload.RECORD}")):
        pending = _PendingUpload(parse(json.loads(record.read_text(encoding="utf-8"))["place"]), record.parent)
        pending.upload(progress)
        locations.append(str(pending.location))
    return locations


def _parsed(value: object) -> object:
    return parse(value) if isinstance(value, str) and is_remote(value) else value


def _localised(key: str, value: object, progress: Progress) -> object:
    """The argument with a local path in place of an address; the result's is replaced later."""
    if not isinstance(value, Location) or key == RESULT:
        return value
    if key == UNFINISHED:
        with contextlib.suppress(_NotFound):
            return _fetched(value, progress)
        return _copy_of(value)
    return _fetched(value, progress)


class _NotFound(UserError):
    pass


def _copy_of(location: Location) -> Path:
    return STORE / location.bucket / location.key


def _fetched(location: Location, progress: Progress) -> Path:
    """An up-to-date local copy of an object, or of everything below a prefix."""
    local = _copy_of(location)
    with reaching(location):
        client = connect()
        held = head(client, location) if location.key else None
        if held is None:
            if not folder.listing(client, location):
                raise _NotFound(f"{location}: nothing there; run the stage that makes it, or correct the address")
            folder.pull(location, local, progress)
        elif not (local.is_file() and local.stat().st_size == held.size and checksums.etag(local) == held.etag):
            download(client, location, local, progress)
    return local


class _Record(TypedDict):
    """The record of a finished result in the outbox."""

    place: str
    """Destination of the result, s3://..."""
    identity: str
    """Digest of what the result was made from; see `_identity`."""
    result: Summary


@dataclass(frozen=True)
class _PendingUpload:
    """A result in the outbox, on its way to the store."""

    location: Location
    """Destination of the result."""
    folder: Path
    """Folder of this result in the outbox."""

    RECORD = "parcel.json"  # written when the content is complete; renamed, it would lose what waits since an update

    @classmethod
    def to(cls, location: Location) -> "_PendingUpload":
        return cls(location, outbox() / "results" / hashlib.sha256(str(location).encode()).hexdigest()[:16])

    @property
    def content(self) -> Path:
        return self.folder / "content" / (self.location.key.rpartition("/")[2] or self.location.bucket)

    def emptied(self) -> Path:
        """Where the stage is to write; nothing is there yet."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.content.parent.mkdir(parents=True)
        return self.content

    def finish(self, identity: str, result: Summary) -> None:
        record: _Record = {"place": str(self.location), "identity": identity, "result": result}
        write_json(self.folder / self.RECORD, record)

    def is_finished(self, identity: str) -> bool:
        return (self.folder / self.RECORD).exists() and self._record()["identity"] == identity

    def upload(self, progress: Progress) -> Summary:
        """Upload the content, remove it here, and return what the stage returned."""
        result = self._record()["result"]
        try:
            if self.content.is_dir():
                folder.push(self.content, self.location, progress)
            else:
                with reaching(self.location):
                    upload(connect(), self.content, self.location, progress)
        except UserError as error:
            fix = "run `scaled-yolov4 sync`, or the same command again, once that is fixed"
            raise TryAgain(f"{error}; the finished result is kept in {self.content}: {fix}") from None
        shutil.rmtree(self.folder)
        return result

    def _record(self) -> _Record:
        return json.loads((self.folder / self.RECORD).read_text(encoding="utf-8"))


def _identity(name: str, params: Params, arguments: dict[str, object]) -> str:
    """SHA-256 (hex) of everything a result depends on; input files count by name, size and time."""
    given = {key: _traits(value) for key, value in arguments.items() if key not in (RESULT, UNFINISHED)}
    content = [name, params.model_dump(mode="json"), given]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _traits(value: object) -> object:
    if not isinstance(value, Path):
        return value
    files = [value] if value.is_file() else sorted(path for path in value.rglob("[!.]*") if path.is_file())
    return [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in files]


@contextlib.contextmanager
def _mirrored(location: object) -> Iterator[None]:
    """Keep uploading the folder of unfinished work while the block runs, and once more after it."""
    if not isinstance(location, Location):
        yield
        return

    def mirror() -> None:
        try:
            folder.push(_copy_of(location), location, live=True)
        except UserError as error:  # the stage continues without a remote copy
            log.warning("%s; unfinished work is kept only in %s", error, _copy_of(location))

    with periodically(mirror, MIRROR_EVERY_S, "mirror", at_end=True):
        yield
