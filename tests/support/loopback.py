"""A loopback server that records requests and fails on demand; other test servers build on it."""

import json
import re
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass
class Fault:
    """What happens to the next `times` requests of this method with a matching path and query.

    status: answered with this code; 0: the connection is cut. done: the request is carried out anyway.
    delay: seconds before that, or before the answer where there is neither.
    """

    method: str
    pattern: str
    status: int | None = None
    times: int = 1
    done: bool = False
    delay: float = 0


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]  # by their names in lower case
    body: bytes


class QuietServer(ThreadingHTTPServer):
    """Does not report clients that are gone: the report would land in the output of whichever test runs then."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@dataclass(kw_only=True)
class LoopbackServer:
    """requests: (method, path with query) in order. `respond` runs under a lock, `changed`."""

    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)

    def __enter__(self):
        owner = self
        self.changed = threading.Condition()
        self.over = False

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # it delays the second half of an answer by 40 ms

            def handle_request(self) -> None:
                owner._answer(self)

            do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_request

            def log_message(self, *_: object) -> None:
                pass

        self.server = QuietServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over = True
        with self.changed:
            self.changed.notify_all()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def respond(self, request: Request) -> tuple[int, Any]:
        """The answer: its status, and its content as text or as JSON."""
        raise NotImplementedError

    def stream(self, request: Request, handler: BaseHTTPRequestHandler) -> bool:
        """Stream the answer to a request; False leaves it to `respond`."""
        return False

    def failure(self, code: int, message: str) -> dict[str, Any]:
        """The content of an error response."""
        return {"code": code, "message": message}

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        address = urlsplit(handler.path)
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in handler.headers.items()}
        request = Request(handler.command, address.path, dict(parse_qsl(address.query)), headers, body)
        with self.changed:
            self.requests.append((handler.command, handler.path))
            fault = self._fault(handler)
        if fault and fault.delay:
            time.sleep(fault.delay)
        fails = fault is not None and fault.status is not None
        if not fails and self.stream(request, handler):
            return
        if not fails or fault.done:
            with self.changed:
                status, content = self.respond(request)
        if fails and fault.status == 0:
            handler.close_connection = True
        elif fails:
            _send(handler, fault.status, self.failure(fault.status, "on demand"))
        else:
            _send(handler, status, content)

    def _fault(self, handler: BaseHTTPRequestHandler) -> Fault | None:
        for fault in self.faults:
            if fault.times and fault.method == handler.command and re.search(fault.pattern, handler.path):
                fault.times -= 1
                return fault
        return None


def _send(handler: BaseHTTPRequestHandler, status: int, content: Any) -> None:
    data = content.encode() if isinstance(content, str) else json.dumps(content).encode()
    handler.send_response(status)
    handler.send_header("Content-Type", "text/plain" if isinstance(content, str) else "application/json")
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(data)
