"""A loopback file server that understands Range and If-Range, and misbehaves on demand."""

import hashlib
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

from loopback import QuietServer


@dataclass
class RangeServer:
    """files: path -> bytes; drop_after: bytes after which each of the first `drops` answers is cut off;
    refusals: status codes of the first answers; whole: ignore Range; requests: (path, Range header) in order."""

    files: dict[str, bytes]
    drop_after: int = 0
    drops: int = 0
    refusals: list[int] = field(default_factory=list)
    whole: bool = False
    requests: list[tuple[str, str | None]] = field(default_factory=list)

    def __enter__(self) -> "RangeServer":
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = QuietServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        wanted = request.headers.get("Range")
        self.requests.append((request.path, wanted))
        data = self.files.get(request.path)
        if self.refusals or data is None:
            request.send_error(self.refusals.pop(0) if self.refusals else 404)
            return
        etag = f'"{hashlib.sha256(data).hexdigest()}"'
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and not self.whole else 0
        if request.headers.get("If-Range", etag) != etag:
            start = 0
        if start >= len(data):
            request.send_error(416)
            return
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        request.send_header("Content-Length", str(len(data) - start))
        request.send_header("ETag", etag)
        request.end_headers()
        body = data[start:]
        if self.drops:
            self.drops -= 1
            body = body[: self.drop_after]
            request.close_connection = True
        request.wfile.write(body)
