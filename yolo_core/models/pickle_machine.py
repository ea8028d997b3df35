"""A data-only pickle machine: containers, numbers, text, and whatever a subclass builds for the names it allows.

Python's own unpickler does more than a weights file should be able to ask for: it hashes any key, sets attributes on
any object, and allocates memory for any memo index. Here time and memory are bounded by the length of the pickle, and
only a `Builder` is ever called.
"""

import pickle
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

LONGEST_KEY = 200  # characters; the longest names in checkpoints have about 60
BIGGEST_KEY = 2**63


class Record:
    """An object of the file kept as plain data: a layer, or a number of a library's own type."""

    def __init__(self) -> None:
        self.fields: dict[object, object] = {}


@dataclass(frozen=True)
class Builder:
    """The meaning of a name that the file may call, with arguments from the file."""

    call: Callable[..., object]


class PickleMachine:
    """Runs a pickle. Raises UnpicklingError, or any other error that the bytes trigger."""

    def find(self, module: str, name: str) -> object:
        """Resolve a name to a Builder or a constant; raises an error if the name is not allowed."""
        raise NotImplementedError

    def persistent(self, pid: object) -> object:
        """The object stored outside the pickle under `pid`."""
        raise NotImplementedError

    def run(self, data: bytes) -> object:
        """The unpickled object. Sets become lists, all dict types become dict."""
        self._stack: list[object] = []
        self._marks: list[int] = []
        self._memo: dict[int, object] = {}
        for operation, argument, _ in pickletools.genops(data):
            if operation.name == "STOP":
                break
            step = _STEPS.get(operation.name)
            if step is None:
                raise pickle.UnpicklingError(f"operation {operation.name}")
            step(self, argument)
        return self._stack.pop()

    def _push(self, value: object) -> None:
        self._stack.append(value)

    def _since_mark(self) -> list[object]:
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _take(self, count: int) -> tuple[object, ...]:
        if count > len(self._stack):
            raise pickle.UnpicklingError("stack underflow")
        items = tuple(self._stack[len(self._stack) - count :])
        del self._stack[len(self._stack) - count :]
        return items

    def _extend(self, items: list[object] | tuple[object, ...]) -> None:
        if not isinstance(self._stack[-1], list):
            raise pickle.UnpicklingError("items for something other than a list")
        self._stack[-1].extend(items)

    def _update(self, items: list[object] | tuple[object, ...]) -> None:
        if not isinstance(self._stack[-1], dict):
            raise pickle.UnpicklingError("keys for something other than a dict")
        self._stack[-1].update(_pairs(items))

    def _pop(self) -> None:
        if self._marks and self._marks[-1] == len(self._stack):
            self._marks.pop()
        else:
            self._stack.pop()

    def _memoize(self, index: int | None) -> None:
        self._memo[len(self._memo) if index is None else index] = self._stack[-1]

    def _global(self, module: object, name: object) -> None:
        if not (isinstance(module, str) and isinstance(name, str)):
            raise pickle.UnpicklingError("a name that is not a string")
        self._push(self.find(module, name))

    def _reduce(self) -> None:
        builder, arguments = self._take(2)
        if not isinstance(builder, Builder) or not isinstance(arguments, tuple):
            raise pickle.UnpicklingError("a call of something that cannot be called")
        self._push(builder.call(*arguments))

    def _build(self) -> None:
        """Store the state of a layer; the state of any other object is irrelevant to weights."""
        state = self._stack.pop()
        if isinstance(self._stack[-1], Record) and isinstance(state, dict):
            self._stack[-1].fields = state


def _pairs(items: list[object] | tuple[object, ...]) -> dict[object, object]:
    return {_key(key): value for key, value in zip(items[::2], items[1::2], strict=True)}


def _key(key: object) -> object:
    """The key, if it is cheap to hash and print; nested tuples could take forever."""
    text = isinstance(key, str) and len(key) <= LONGEST_KEY and key.isprintable()
    if text or key is None or (isinstance(key, int | float) and abs(key) < BIGGEST_KEY):
        return key
    raise pickle.UnpicklingError(f"a key that is not a name or a number: {type(key).__name__}")


_Step = Callable[[PickleMachine, Any], object]
_VALUES = (
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING "
    "UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8"
)
# Uses private methods of the machine, which this table is part of.
_STEPS: dict[str, _Step] = {
    **dict.fromkeys(_VALUES.split(), lambda m, value: m._push(value)),
    "PROTO": lambda m, _: None,
    "FRAME": lambda m, _: None,
    "NONE": lambda m, _: m._push(None),
    "NEWTRUE": lambda m, _: m._push(True),
    "NEWFALSE": lambda m, _: m._push(False),
    "EMPTY_LIST": lambda m, _: m._push([]),
    "EMPTY_SET": lambda m, _: m._push([]),
    "EMPTY_DICT": lambda m, _: m._push({}),
    "EMPTY_TUPLE": lambda m, _: m._push(()),
    "MARK": lambda m, _: m._marks.append(len(m._stack)),
    "POP": lambda m, _: m._pop(),
    "POP_MARK": lambda m, _: m._since_mark(),
    "DUP": lambda m, _: m._push(m._stack[-1]),
    "LIST": lambda m, _: m._push(m._since_mark()),
    "FROZENSET": lambda m, _: m._push(m._since_mark()),
    "TUPLE": lambda m, _: m._push(tuple(m._since_mark())),
    "DICT": lambda m, _: m._push(_pairs(m._since_mark())),
    "TUPLE1": lambda m, _: m._push(m._take(1)),
    "TUPLE2": lambda m, _: m._push(m._take(2)),
    "TUPLE3": lambda m, _: m._push(m._take(3)),
    "APPEND": lambda m, _: m._extend(m._take(1)),
    "APPENDS": lambda m, _: m._extend(m._since_mark()),
    "ADDITEMS": lambda m, _: m._extend(m._since_mark()),
    "SETITEM": lambda m, _: m._update(m._take(2)),
    "SETITEMS": lambda m, _: m._update(m._since_mark()),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), lambda m, index: m._memoize(index)),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda m, index: m._push(m._memo[index])),
    "GLOBAL": lambda m, names: m._global(*names.split(" ", 1)),
    "STACK_GLOBAL": lambda m, _: m._global(*m._take(2)),
    "REDUCE": lambda m, _: m._reduce(),
    "NEWOBJ": lambda m, _: m._reduce(),
    "BUILD": lambda m, _: m._build(),
    "BINPERSID": lambda m, _: m._push(m.persistent(m._stack.pop())),
}
