"""A connection to Ray for the length of a block: the cluster of RAY_ADDRESS, else a local one."""

import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from components import telemetry
from yolo_core.errors import TryAgain, UserError

PATIENCE_S = 5.0  # for an address to accept connections; Ray itself waits 30 s or two minutes and then ends the process
REMEDY = "start it (`ray start --head`) or unset RAY_ADDRESS"


@contextmanager
def connected(cpus: int, *, show_workers: bool) -> Iterator[None]:
    """Connect, and disconnect at the end; an existing connection is used and stays.

    cpus: processors that a local cluster offers at least; the machine's when those are more.
    show_workers: whether the workers' output appears here.
    Raises TryAgain if the cluster of RAY_ADDRESS does not answer, UserError if Ray cannot start here.
    """
    telemetry.turn_off()
    import ray

    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS")
    if address:
        check_address(address)
    own = {} if address else {"include_dashboard": False, "num_cpus": max(cpus, os.cpu_count() or 1)}
    with _failures_told(address):
        ray.init(address or "local", log_to_driver=show_workers, logging_level=logging.ERROR, **own)
    try:
        yield
    finally:
        ray.shutdown()


def check_address(address: str) -> None:
    """Raises UserError for what is no address of a cluster, TryAgain if nothing accepts connections there."""
    if address in ("local", "auto"):
        return
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        parts, host, port = None, None, None
    if parts is None or parts.scheme not in ("", "ray") or not host or not port:
        raise UserError(f"RAY_ADDRESS = {address}: expected HOST:PORT, ray://HOST:PORT or auto")
    deadline = time.monotonic() + PATIENCE_S
    while not _accepts(host, port):
        if time.monotonic() > deadline:
            raise TryAgain(f"RAY_ADDRESS: no Ray cluster at {address}; {REMEDY}")
        time.sleep(0.5)


def _accepts(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=PATIENCE_S).close()
    except OSError:
        return False
    return True


@contextmanager
def _failures_told(address: str | None) -> Iterator[None]:
    """Around `ray.init`: one line for what the user can change."""
    try:
        yield
    except (ConnectionError, SystemExit):  # Ray ends the process where something else than Ray accepts connections
        if not address:
            raise
        raise TryAgain(f"RAY_ADDRESS: no Ray cluster at {address}; {REMEDY}") from None
    except OSError as error:
        folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
        if "AF_UNIX path length" in str(error):
            raise UserError(
                f"{folder}: the paths of Ray's sockets in it exceed 107 bytes; set RAY_TMPDIR to a shorter folder"
            ) from None
        if isinstance(error, PermissionError):
            raise UserError(
                f"{error.filename or folder}: Ray cannot write to it; set RAY_TMPDIR to another folder"
            ) from None
        raise
    except RuntimeError as error:
        if not str(error).startswith("Version mismatch"):
            raise
        raise UserError(f"RAY_ADDRESS = {address}: {error}") from None
