"""A server process that outlives the one that starts it, known by a locked file."""

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.request import urlopen

GRPC_OFFSET = 10_000  # SeaweedFS takes this port beside each of its own


class ServiceError(Exception):
    """A service that cannot be started; one line."""


@dataclass(frozen=True)
class Server:
    """One server: its log and its id lie in `folder`. stop_signal: how it is asked to end."""

    name: str
    folder: Path
    stop_signal: signal.Signals = signal.SIGTERM

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def _id(self) -> Path:
        return self.folder / f"{self.name}.pid"

    def start(self, command: list[str], environment: dict[str, str], user: str | None = None) -> None:
        """Run it in a session of its own; the lock on its id file is inherited, so it lasts as long as the process."""
        with self._id.open("w") as file, private(self.log).open("ab") as log:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
                pass_fds=(file.fileno(),),
                user=user,
                group=user,
                extra_groups=[] if user else None,
            )
            file.write(str(process.pid))

    def is_running(self) -> bool:
        try:
            with self._id.open("r+") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return False
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True

    def stop(self, patience_s: float = 10) -> None:
        """Ask it to end; one that does not is killed."""
        for number, within in ((self.stop_signal, patience_s), (signal.SIGKILL, 10)):
            if not self.is_running():
                return
            process = int(self._id.read_text())
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process, number)
            with contextlib.suppress(TimeoutError):
                wait_until(partial(self._has_ended, process), within)

    def _has_ended(self, process: int) -> bool:
        with contextlib.suppress(ChildProcessError):  # one that this process started must be collected
            os.waitpid(process, os.WNOHANG)
        return not self.is_running()

    def wait_until_ready(self, is_ready: Callable[[], bool], within_s: float) -> None:
        """Raise ServiceError with the end of its log when it ends or does not get ready."""

        def settled() -> bool:
            if not self.is_running():
                raise ServiceError(f"{self.name} ended at once; {self.log}: {self._last_words()}")
            return is_ready()

        try:
            wait_until(settled, within_s)
        except TimeoutError:
            raise ServiceError(f"{self.name} is not ready after {within_s:g} s; see {self.log}") from None

    def _last_words(self) -> str:
        return next((line for line in reversed(self.log.read_text(errors="replace").splitlines()) if line.strip()), "")


def wait_until(is_so: Callable[[], bool], within_s: float) -> None:
    """Raises TimeoutError."""
    deadline = time.monotonic() + within_s
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.05)


def answers(url: str) -> bool:
    """Does a GET of this address succeed?"""
    try:
        with urlopen(url, timeout=5):
            return True
    except OSError:
        return False


def private(path: Path) -> Path:
    """A file that only its owner can read, made when missing."""
    path.touch(mode=0o600)
    path.chmod(0o600)
    return path


def free_port() -> int:
    """A port of the loopback that is free now, and so is the one at GRPC_OFFSET above it."""
    while True:
        with socket.socket() as service, socket.socket() as grpc:
            service.bind(("127.0.0.1", 0))
            port = service.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):
                grpc.bind(("127.0.0.1", port + GRPC_OFFSET))
                return port


def program(name: str, *folders: Path) -> str | None:
    """The path of a program in one of these folders, else on the PATH."""
    own = (str(folder / name) for folder in folders if (folder / name).is_file())
    return next(own, None) or shutil.which(name)
