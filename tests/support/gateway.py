"""A Pushgateway for tests: the real one if installed, and a server that keeps what is pushed to it."""

import contextlib
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from loopback import LoopbackServer, Request
from prometheus_client.parser import text_string_to_metric_families
from waiting import LIMIT_S, until

Figures = dict[str, float]


@dataclass(kw_only=True)
class KeptPushes(LoopbackServer):
    """pushes: method and path of every request, oldest first, and the figures in it by name."""

    pushes: list[tuple[str, str, Figures]] = field(default_factory=list)

    def respond(self, request: Request) -> tuple[int, str]:
        self.pushes.append((request.method, request.path, figures(request.body.decode())))
        return 200, ""


def figures(text: str) -> Figures:
    """The samples of the text format by name; the last one of a repeated name."""
    return {sample.name: sample.value for family in text_string_to_metric_families(text) for sample in family.samples}


def fetched(address: str) -> Figures:
    with urllib.request.urlopen(f"{address}/metrics", timeout=LIMIT_S) as answer:
        return figures(answer.read().decode())


@contextlib.contextmanager
def pushgateway() -> Iterator[str]:
    """The address of a Pushgateway of this test's own. Skips the test where the program is missing."""
    program = shutil.which("prometheus-pushgateway") or shutil.which("pushgateway")
    if not program:
        pytest.skip("no pushgateway; apt-get install prometheus-pushgateway")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    listen = f"--web.listen-address=127.0.0.1:{port}"
    process = subprocess.Popen([program, listen], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: _listens(port), "the Pushgateway listens", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(LIMIT_S)


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), LIMIT_S):
        return True
    return False
