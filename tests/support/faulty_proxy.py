"""A TCP proxy on loopback that drops, slows, cuts, damages and refuses traffic, as the test requires."""

import asyncio
import contextlib
import math
import threading
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from waiting import EVERY_S, LIMIT_S, until

Direction = Literal["up", "down"]  # to the server, from the server
UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
CHUNK_BYTES = 1 << 16


@dataclass
class Fault:
    """What happens to the byte `at` bytes from here in each connection in one direction; repeats, `times` times in all.

    cut: the connection closes there; damage: that byte is changed; hang: nothing passes after it.
    """

    kind: Literal["cut", "damage", "hang"]
    direction: Direction
    at: int
    times: int = 1


@dataclass
class FaultyProxy:
    """A proxy before `target` (http://host:port); change its fields while it runs.

    state: "through", "refuse" (connections are closed immediately) or "503" (the answer to everything); entering the
    last two ends the open connections. delay_s: before each chunk; rate: bytes/s of each direction of a connection.
    passed: bytes so far in each direction; hold: after how many no more pass; connections: how many began.
    """

    target: str
    delay_s: float = 0.0
    rate: float | None = None
    faults: list[Fault] = field(default_factory=list)
    passed: dict[str, int] = field(default_factory=lambda: {"up": 0, "down": 0})
    hold: dict[str, float] = field(default_factory=lambda: {"up": math.inf, "down": math.inf})
    connections: int = 0

    def __enter__(self) -> "FaultyProxy":
        self._state = "through"
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        server = self._do(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self._server, self._port = server, server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def state(self) -> str:
        return self._state

    @state.setter
    def state(self, state: Literal["through", "refuse", "503"]) -> None:
        self._state = state
        if state != "through":
            self._do(self._close_all())

    def wait_for(self, direction: Direction, count: int) -> None:
        """Wait until that many bytes have passed."""
        until(lambda: self.passed[direction] >= count, f"{count} bytes {direction}")

    def _do(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(LIMIT_S)

    async def _end(self) -> None:
        self._server.close()
        await self._close_all()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _close_all(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open.add(writer)
        try:
            if self._state == "503":
                await reader.readuntil(b"\r\n\r\n")
                writer.write(UNAVAILABLE)
                await writer.drain()
            elif self._state == "through":
                address = urlsplit(self.target)
                there = await asyncio.open_connection(address.hostname, address.port)
                self._open.add(there[1])
                pumps = [self._pump(reader, there[1], "up"), self._pump(there[0], writer, "down")]
                tasks = [asyncio.ensure_future(pump) for pump in pumps]
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                there[1].close()
                self._open.discard(there[1])
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._open.discard(writer)
            writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction) -> None:
        done, since = 0, {}  # since: where each fault was last applied
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                while self.passed[direction] >= self.hold[direction]:
                    await asyncio.sleep(EVERY_S)
                data, ends = await self._befallen(data, done, direction, since)
                writer.write(data)
                await writer.drain()
                done += len(data)
                self.passed[direction] += len(data)
                if ends:
                    return
                await asyncio.sleep(self.delay_s + (len(data) / self.rate if self.rate else 0))

    async def _befallen(
        self, data: bytes, done: int, direction: Direction, since: dict[int, int]
    ) -> tuple[bytes, bool]:
        """What is left of a chunk after the faults, and whether the connection ends with it."""
        for fault in self.faults:
            at = max(0, since.setdefault(id(fault), done) + fault.at - done)
            if fault.times and fault.direction == direction and at < len(data):
                fault.times -= 1
                since[id(fault)] = done + at
                if fault.kind == "damage":
                    data = data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]
                elif fault.kind == "cut":
                    return data[:at], True
                else:
                    await asyncio.sleep(3600)
        return data, False
