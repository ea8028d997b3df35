"""A module with syntax that Python versions represent differently: f-strings, type parameters, matches, decorators."""

import dataclasses
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Box(Generic[T]):
    value: T
    """What it holds."""
    name: str = "box"

    def shown(self, width: int = 3, *rest: object, sep: str = ", ", **more: object) -> str:
        match rest:
            case [first, *_] if first:
                return f"{self.value!r:>{width}}{sep}{first}"
            case _:
                return rf"\d {self.name}" + "ab"


async def numbers():
    async for x in (y async for y in numbers()):
        yield -(x**2), 1e-3, 0x10, b"\0", ..., (None, True), x if x else [i * 2 for i in range(3)]
