"""A server process that outlives its starter and is identified by a locked file.

The lock is an inherited file descriptor: the server itself holds it until it ends. `yolo_core.locks.exclusive` would
release it when the starter's block ends, so it does not serve here.
"""

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

GRPC_OFFSET = 10_000  # SeaweedFS also opens the port this far above each of its own


class ServiceError(Exception):
    """A service cannot be started; the message is one line."""


@dataclass(frozen=True)
class Server:
    name: str
    folder: Path
    """Of its log and its process id."""

    stop_signal: signal.Signals = signal.SIGTERM

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def _id(self) -> Path:
        return self.folder / f"{self.name}.pid"

    def start(self, command: list[str], environment: dict[str, str], user: str | None = None) -> None:
        """Run it in a session of its own. It inherits the lock on its id file, which lasts as long as the process."""
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

    def stop(self, timeout_s: float = 10) -> None:
        """Send the stop signal, and SIGKILL if it does not end."""
        for number, within in ((self.stop_signal, timeout_s), (signal.SIGKILL, 10)):
            if not self.is_running():
                return
            process = int(self._id.read_text())
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process, number)
            with contextlib.suppress(TimeoutError):
                wait_until(partial(self._has_ended, process), within)

    def _has_ended(self, process: int) -> bool:
        with contextlib.suppress(ChildProcessError):  # a child of this process must be reaped
            os.waitpid(process, os.WNOHANG)
        return not self.is_running()

    def wait_until_ready(self, is_ready: Callable[[], bool], within_s: float) -> None:
        """Raises ServiceError with the last line of its log if it ends or does not become ready."""

        def is_ready_or_ended() -> bool:
            if not self.is_running():
                raise ServiceError(f"{self.name} exited immediately; {self.log}: {self._last_line()}")
            return is_ready()

        try:
            wait_until(is_ready_or_ended, within_s)
        except TimeoutError:
            raise ServiceError(f"{self.name} is not ready after {within_s:g} s; see {self.log}") from None

    def _last_line(self) -> str:
        return next((line for line in reversed(self.log.read_text(errors="replace").splitlines()) if line.strip()), "")


def wait_until(condition: Callable[[], bool], within_s: float) -> None:
    """Raises TimeoutError."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.05)


def answers(url: str) -> bool:
    """Whether a GET of this address succeeds."""
    try:
        with urlopen(url, timeout=5):
            return True
    except OSError:
        return False


def private(path: Path) -> Path:
    """A file that only its owner can read, created if missing."""
    path.touch(mode=0o600)
    path.chmod(0o600)
    return path


def free_port() -> int:
    """A loopback port that is free, as is the one GRPC_OFFSET above it, which is no free port of another call."""
    while True:
        with socket.socket() as service, socket.socket() as grpc:
            service.bind(("127.0.0.1", 0))
            port = service.getsockname()[1]
            if port // GRPC_OFFSET % 2:  # may be another one's gRPC port
                continue
            with contextlib.suppress(OSError, OverflowError):
                grpc.bind(("127.0.0.1", port + GRPC_OFFSET))
                return port


def program(name: str, *folders: Path) -> str | None:
    """The path of a program in one of these folders, or else on the PATH."""
    own = (str(folder / name) for folder in folders if (folder / name).is_file())
    return next(own, None) or shutil.which(name)
