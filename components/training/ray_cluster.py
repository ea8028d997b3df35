"""A connection to Ray for the length of a block: the cluster of RAY_ADDRESS, else a local one."""

import contextlib
import logging
import os
import secrets
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from components import telemetry
from yolo_core.errors import TryAgain, UserError

PATIENCE_S = 5.0  # for an address to accept connections; Ray itself waits 30 s or two minutes and then ends the process
LOOPBACK = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # 0: the node's address is 127.0.0.1, as on those systems
    "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo",
}
REMEDY = "start it (`ray start --head`) or unset RAY_ADDRESS"


@contextmanager
def connected(cpus: int, *, show_workers: bool) -> Iterator[None]:
    """Connect, and disconnect at the end; an existing connection is used and stays.

    cpus: processors that a local cluster offers at least; the machine's when those are more.
    show_workers: whether the workers' output appears here.
    Raises TryAgain if the cluster of RAY_ADDRESS does not answer, UserError if Ray cannot start here.
    """
    before_import()
    import ray

    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS")
    if address:
        check_address(address)
    if not address and not os.access(Path("~").expanduser(), os.W_OK):  # where Ray would keep the cluster's token
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    own = {} if address else {"include_dashboard": False, "num_cpus": max(cpus, os.cpu_count() or 1)}
    with _failures_told(address), contextlib.nullcontext() if address else _without_reporter():
        ray.init(address or "local", log_to_driver=show_workers, logging_level=logging.ERROR, **own)
    try:
        yield
    finally:
        ray.shutdown()


def before_import() -> None:
    """Set what Ray and its processes read at import: no usage statistics, and a local cluster keeps to loopback.

    Otherwise a local cluster would also listen to the network, and Gloo would look up this machine's name.
    """
    telemetry.turn_off()
    if not os.environ.get("RAY_ADDRESS"):
        for name, value in LOOPBACK.items():
            os.environ.setdefault(name, value)


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
def _without_reporter() -> Iterator[None]:
    """Around the start of a local cluster: it gets no usage reporter, unless the user turned usage statistics on.

    Even if they are off, that process asks the metadata services of three clouds where it runs, and Ray has no switch
    for it. Without the dashboard it has no other purpose.
    """
    from ray._private import services

    if os.environ["RAY_USAGE_STATS_ENABLED"] == "1":
        yield
        return
    start = services.start_api_server
    services.start_api_server = lambda *_args, **_kwargs: (None, None)  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        services.start_api_server = start


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
