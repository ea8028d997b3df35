"""Stages on places in the store: inputs become working copies here, results go there when the stage has ended.

A result that is finished and not yet there lies in the outbox: `deliver_all` (the command `sync`) sends it later, and
the same stage on the same inputs sends it instead of computing it again.
"""

import contextlib
import hashlib
import json
import logging
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.params import Params
from components.storage import folder, transfer
from components.storage.client import connect, reaching, writable
from components.storage.location import Location, is_remote, parse
from components.workspace import STORE, outbox
from yolo_core.atomic import write_json
from yolo_core.errors import TryAgain, UserError
from yolo_core.progress import Progress, silent

RESULT, UNFINISHED = "out", "work"  # what these options of a stage name is written; the others are read
MIRROR_EVERY_S = 30.0

log = logging.getLogger(__name__)


def run(
    name: str, stage: Callable[..., dict[str, Any]], params: Params, arguments: dict[str, Any], progress: Progress
) -> dict[str, Any]:
    """Run a stage whose arguments may be addresses (s3://...), on local copies; returns what the stage returns.

    Raises UserError when an input is not in the store, TryAgain when the store is away; a finished result is then kept.
    """
    arguments = {key: _parsed(value) for key, value in arguments.items()}
    local = {key: _here(key, value, progress) for key, value in arguments.items()}
    with _mirrored(arguments.get(UNFINISHED)):
        destination = arguments.get(RESULT)
        if not isinstance(destination, Location):
            return stage(params, progress=progress, **local)
        parcel = _Parcel.to(destination)
        identity = _identity(name, params, local)
        if not parcel.is_sealed(identity):
            with reaching(destination):
                writable(connect(), destination)
            result = stage(params, progress=progress, **{**local, RESULT: parcel.emptied()})
            parcel.seal(identity, result)
        return parcel.deliver(progress)


def local_copy(path: str, progress: Progress = silent) -> str:
    """A path as it is; of an address in the store the path of a working copy, brought up to date."""
    return str(_fetched(parse(path), progress)) if is_remote(path) else path


def deliver_all(progress: Progress) -> list[str]:
    """Send every finished result that waits; returns where they went. Raises TryAgain at the first that must wait."""
    places = []
    for note in sorted((outbox() / "results").glob(f"*/{_Parcel.NOTE}")):
        parcel = _Parcel(parse(json.loads(note.read_text(encoding="utf-8"))["place"]), note.parent)
        parcel.deliver(progress)
        places.append(str(parcel.place))
    return places


def _parsed(value: Any) -> Any:
    return parse(value) if isinstance(value, str) and is_remote(value) else value


def _here(key: str, value: Any, progress: Progress) -> Any:
    if not isinstance(value, Location) or key == RESULT:
        return value
    if key == UNFINISHED:
        with contextlib.suppress(_Nothing):
            return _fetched(value, progress)
        return _copy_of(value)
    return _fetched(value, progress)


class _Nothing(UserError):
    pass


def _copy_of(place: Location) -> Path:
    return STORE / place.bucket / place.key


def _fetched(place: Location, progress: Progress) -> Path:
    """The working copy of an object, or of everything below a prefix."""
    local = _copy_of(place)
    with reaching(place):
        client = connect()
        held = transfer.look(client, place) if place.key else None
        if held is None:
            if not folder.listing(client, place):
                raise _Nothing(f"{place}: nothing there; run the stage that makes it, or correct the address")
            folder.pull(place, local, progress)
        elif not (local.is_file() and local.stat().st_size == held.size and transfer.etag(local) == held.etag):
            transfer.download(client, place, local, progress)
    return local


@dataclass(frozen=True)
class _Parcel:
    """A result on its way to the store, in a folder of the outbox."""

    place: Location
    folder: Path

    NOTE = "parcel.json"  # written when the content is whole

    @classmethod
    def to(cls, place: Location) -> "_Parcel":
        return cls(place, outbox() / "results" / hashlib.sha256(str(place).encode()).hexdigest()[:16])

    @property
    def content(self) -> Path:
        return self.folder / "content" / (self.place.key.rpartition("/")[2] or self.place.bucket)

    def emptied(self) -> Path:
        """Where the stage is to write."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.content.parent.mkdir(parents=True)
        return self.content

    def seal(self, identity: str, result: dict[str, Any]) -> None:
        write_json(self.folder / self.NOTE, {"place": str(self.place), "identity": identity, "result": result})

    def is_sealed(self, identity: str) -> bool:
        return (self.folder / self.NOTE).exists() and self._note()["identity"] == identity

    def deliver(self, progress: Progress) -> dict[str, Any]:
        """Send the content, remove it here, and return what the stage returned."""
        result = self._note()["result"]
        try:
            if self.content.is_dir():
                folder.push(self.content, self.place, progress)
            else:
                with reaching(self.place):
                    transfer.upload(connect(), self.content, self.place, progress)
        except UserError as error:
            mend = "run `scaled-yolov4 sync`, or the same command again, when that is mended"
            raise TryAgain(f"{error}; the finished result waits in {self.content}: {mend}") from None
        shutil.rmtree(self.folder)
        return result

    def _note(self) -> dict[str, Any]:
        return json.loads((self.folder / self.NOTE).read_text(encoding="utf-8"))


def _identity(name: str, params: Params, arguments: dict[str, Any]) -> str:
    """SHA-256 of what a result comes from; files are told by name, size and time."""
    given = {key: _traits(value) for key, value in arguments.items() if key not in (RESULT, UNFINISHED)}
    content = [name, params.model_dump(mode="json"), given]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _traits(value: Any) -> Any:
    if not isinstance(value, Path):
        return value
    files = [value] if value.is_file() else sorted(path for path in value.rglob("[!.]*") if path.is_file())
    return [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in files]


@contextlib.contextmanager
def _mirrored(place: Any) -> Iterator[None]:
    """Keep a folder of unfinished work in step with the store while the block runs, and after it."""
    if not isinstance(place, Location):
        yield
        return
    over = threading.Event()

    def mirror() -> None:
        is_over = False
        while not is_over:
            is_over = over.wait(MIRROR_EVERY_S)
            try:
                folder.push(_copy_of(place), place, live=True)
            except UserError as error:  # the work goes on without its copy
                log.warning("%s; unfinished work is only in %s", error, _copy_of(place))

    thread = threading.Thread(target=mirror, name="mirror", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
