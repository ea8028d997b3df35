"""A contender: one task in its own process, so that peers whose modules clash can run in one race."""

import importlib
import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

Figures = dict[str, float]
Round = Callable[[], Figures]


class Missing(Exception):
    """The contender cannot run here; the message is the reason."""


@dataclass(frozen=True)
class Contender:
    name: str
    make: str
    """"module:function", called once with `options` in the child.

    It prepares the work and returns a function that does one round and returns its figures. It raises Missing or
    ImportError where it cannot run.
    """

    options: Mapping[str, object] = field(default_factory=dict)
    path: Sequence[str] = ()
    """Folders put before the child's import path, such as a peer's checkout."""

    threads: int = 1
    """Number of threads of torch and OpenMP."""

    env: dict[str, str] = field(default_factory=dict)
    """Further environment variables of the child."""


class Running:
    """A contender's process. `ready` waits for the preparation; each `round` then runs one and waits for it."""

    def __init__(self, contender: Contender) -> None:
        self.contender = contender
        self._here, there = multiprocessing.Pipe()
        before = os.environ.copy()
        os.environ.update({"OMP_NUM_THREADS": str(contender.threads), **contender.env})
        try:  # the child reads its environment when it starts
            self._process = multiprocessing.get_context("spawn").Process(target=_serve, args=(contender, there))
            self._process.start()
        finally:
            os.environ.clear()
            os.environ.update(before)
        there.close()

    def ready(self) -> None:
        """Raises Missing when the contender cannot run here."""
        self._answer()

    def round(self) -> Figures:
        self._here.send("go")
        return self._answer()

    def stop(self) -> None:
        self._here.close()
        self._process.join(10)
        self._process.kill()

    def _answer(self) -> Figures:
        """The figures of a round; none of the preparation."""
        try:
            kind, value = self._here.recv()
        except EOFError:
            raise Missing(f"its process exited with {self._process.exitcode}") from None
        if kind == "missing":
            raise Missing(value)
        if kind == "error":
            raise RuntimeError(f"{self.contender.name}:\n{value}")
        return value


def _serve(contender: Contender, pipe: Connection) -> None:
    """The child: prepare, then run a round per message until the other end is closed."""
    sys.path[:0] = contender.path
    try:
        module, function = contender.make.split(":")
        once: Round = getattr(importlib.import_module(module), function)(**contender.options)
        pipe.send(("ready", {}))
        while pipe.recv():
            pipe.send(("figures", once()))
    except Missing as error:
        pipe.send(("missing", str(error)))
    except ImportError as error:
        fix = "; run make bench-peers and set PEERS" if contender.make.startswith("benchmarks.peers.") else ""
        pipe.send(("missing", f"{error}{fix}"))
    except EOFError:
        pass
    except Exception:
        pipe.send(("error", traceback.format_exc()))
