"""The driver's end of a training whose workers may run on any node.

Checkpoints, results and records are kept on the driver's node, by an actor there: no other node need see its folders,
and a main worker that starts on another node than the one before it is given the newest checkpoints. What a node needs
of the object store it fetches itself.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from components.storage.stage_paths import local_copy
from components.tracking import connection
from components.workspace import STORE
from yolo_core import atomic
from yolo_core.errors import Diverged, TryAgain, UserError

NODE_VARIABLE = "SCALED_YOLOV4_NODE_FOLDER"
SUMS = "SHA256SUMS"  # a checkpoint's file that tells it from others
CHUNK_BYTES = 32 << 20
ANSWER_S = 600.0  # limit of one answer
POLL_S = 0.5
LAST_WORDS_S = 15.0  # for a worker to end by itself once another has told what is wrong

KINDS: dict[str, type[UserError]] = {kind.__name__: kind for kind in (UserError, TryAgain, Diverged)}


def kind_of(error: UserError) -> str:
    """Its name in KINDS, the narrowest that fits."""
    return next(name for name, kind in reversed(KINDS.items()) if isinstance(error, kind))


class Home:
    """The actor's side. folder: of the training; record: opens the run that is recorded."""

    def __init__(self, folder: Path, record: Callable[[], contextlib.AbstractContextManager[Any]]) -> None:
        self._folder, self._incoming = folder, folder / ".incoming"
        self._open_record, self._end = record, contextlib.ExitStack()
        self._record: Any = None
        self._stops = False
        self._trouble: tuple[str, str] | None = None
        self._asked = time.monotonic()
        self._queued: float | None = None

    def word(self) -> tuple[bool, tuple[str, str] | None]:
        """Whether to stop, and the kind and line of a worker's UserError."""
        return self._stops, self._trouble

    def ask_to_stop(self) -> None:
        self._stops = True

    def tell(self, kind: str, line: str) -> None:
        """Remember the first error that the user is to see."""
        self._trouble = self._trouble or (kind, line)

    def queued(self) -> float:
        """Seconds from the driver's asking for workers until the first one called this; later calls change nothing."""
        if self._queued is None:
            self._queued = time.monotonic() - self._asked
        return self._queued

    def run_id(self) -> str | None:
        """Open the run; once, however often workers start."""
        if self._record is None:
            self._record = self._end.enter_context(self._open_record())
        return self._record.run_id

    def log(self, metrics: Mapping[str, float | None], step: int) -> None:
        """Record metrics in the open run."""
        assert self._record
        self._record.log(metrics, step)

    def end_record(self, failed: bool) -> None:
        with contextlib.suppress(_Failed), self._end:
            if failed:
                raise _Failed

    def sums(self) -> dict[str, str]:
        """The checksums of every checkpoint by its name."""
        found = sorted((self._folder / "checkpoints").glob(f"step-*/{SUMS}"))
        return {path.parent.name: path.read_text(encoding="utf-8") for path in found}

    def files(self, name: str) -> list[str]:
        """The files of a folder below that of the training."""
        return sorted(path.name for path in (self._folder / name).iterdir())

    def read(self, name: str, file: str, offset: int) -> bytes:
        """The part of a file from `offset`; nothing at its end."""
        with (self._folder / name / file).open("rb") as content:
            content.seek(offset)
            return content.read(CHUNK_BYTES)

    def begin(self) -> None:
        """Forget what came of a folder that never became whole."""
        shutil.rmtree(self._incoming, ignore_errors=True)
        self._incoming.mkdir(parents=True)

    def write(self, file: str, data: bytes) -> None:
        """Add to a file of the folder that is coming."""
        with (self._incoming / file).open("ab") as content:
            content.write(data)

    def accept(self, name: str, keep: list[str] | None = None) -> None:
        """What has come is whole: put it at `name`. keep: the names beside it that stay, None for all."""
        place = self._folder / name
        shutil.rmtree(place, ignore_errors=True)
        with atomic.replaced_folder(place) as aside:
            for path in self._incoming.iterdir():
                path.replace(aside / path.name)
        for old in place.parent.glob("step-*"):
            if keep is not None and old.name not in keep:
                shutil.rmtree(old)


class _Failed(Exception):
    """Ends a run as failed."""


@contextlib.contextmanager
def opened(folder: Path, record: Callable[[], contextlib.AbstractContextManager[Any]]) -> Iterator[Any]:
    """The handle of a `Home` on this process's node."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options: dict[str, Any] = {
        "num_cpus": 0,
        "max_concurrency": 8,
        "scheduling_strategy": here,
        "runtime_env": {"env_vars": connection.environment()},
    }
    home: Any = ray.remote(Home).options(**options).remote(folder, record)
    try:
        yield home
    finally:
        ray.kill(home)


def answer(reference: Any) -> Any:
    """What the actor answers; its UserError is one here as well."""
    try:
        return ray.get(reference, timeout=ANSWER_S)
    except RayTaskError as error:
        raise (error.cause if isinstance(error.cause, UserError) else error) from None


@contextlib.contextmanager
def forwarded(stop: threading.Event, home: Any) -> Iterator[None]:
    """Hand a driver's wish to stop to the workers while the block runs."""
    over = threading.Event()

    def forward() -> None:
        while not over.wait(POLL_S):
            if stop.is_set():
                ray.get(home.ask_to_stop.remote(), timeout=ANSWER_S)
                return

    thread = threading.Thread(target=forward, name="stop", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextlib.contextmanager
def listening(home: Any) -> Iterator[Callable[[], bool]]:
    """A worker's ear: yields whether it is asked to stop.

    A worker that waits for one that has ended with an error would wait for ever: it ends as well.
    """
    over, stop = threading.Event(), threading.Event()

    def listen() -> None:
        while not over.wait(POLL_S):
            try:
                stops, trouble = ray.get(home.word.remote(), timeout=ANSWER_S)
            except RayActorError:  # the driver is gone, and Ray ends this process
                return
            if stops:
                stop.set()
            if trouble and not over.wait(LAST_WORDS_S):
                os._exit(1)

    threading.Thread(target=listen, name="home", daemon=True).start()
    try:
        yield stop.is_set
    finally:
        over.set()


def bring_checkpoints(home: Any, folder: Path) -> None:
    """Make a folder of this node hold the checkpoints of home; those that it has already do not travel."""
    wanted = answer(home.sums.remote())
    for path in folder.glob("step-*"):
        sums = path / SUMS
        if not sums.is_file() or sums.read_text(encoding="utf-8") != wanted.get(path.name):
            shutil.rmtree(path)
    for name in wanted:
        if (folder / name).exists():
            continue
        with atomic.replaced_folder(folder / name) as aside:
            for file in answer(home.files.remote(f"checkpoints/{name}")):
                _bring_file(home, f"checkpoints/{name}", file, aside / file)


def _bring_file(home: Any, name: str, file: str, to: Path) -> None:
    with to.open("wb") as content:
        while part := answer(home.read.remote(name, file, content.tell())):
            content.write(part)


def send(home: Any, path: Path, name: str, keep: list[str] | None = None) -> None:
    """Put a folder of this node at `name` at home, whole or not at all; see `Home.accept`."""
    answer(home.begin.remote())
    for file in sorted(path.iterdir()):
        with file.open("rb") as content:
            while part := content.read(CHUNK_BYTES):
                answer(home.write.remote(file.name, part))
    answer(home.accept.remote(name, keep))


def node_folder() -> Path:
    """Where a node keeps what it fetches: SCALED_YOLOV4_NODE_FOLDER, or a place among the temporary files."""
    default = Path(tempfile.gettempdir()) / f"scaled-yolov4-{os.getuid()}"
    folder = Path(os.environ.get(NODE_VARIABLE) or default).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def origin(path: Path) -> str | None:
    """The address in the object store of a working copy; None for another path."""
    try:
        bucket, *key = path.absolute().relative_to(STORE.absolute()).parts
    except ValueError:
        return None
    return f"s3://{bucket}/{'/'.join(key)}"


def brought(path: Path, address: str | None) -> Path:
    """The path on this node of what the driver has at `path`: fetched from its address, else seen at the same path."""
    if address:
        with contextlib.chdir(node_folder()):
            return Path(local_copy(address)).absolute()
    if not path.exists():
        raise UserError(
            f"{path}: not on node {ray.util.get_node_ip_address()}, where a worker runs; put it in the object store "
            "(s3://...), or on a file system that every node has"
        )
    return path
