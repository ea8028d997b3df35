"""What the fields of a COCO file mean, also as exporters write them that keep no types.

Numbers may stand in quotes or as 3.0, `iscrowd` may be a boolean. What has no single meaning is not read.
"""

import json
import re
import sys
from typing import TypeGuard

NUMBERS = frozenset({int, float})  # not bool, which is an int, too
LARGEST_ID = 2**63 - 1
WHOLE = 2**53  # floats beyond it skip whole numbers
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_FLAGS = {"0": False, "1": True, "false": False, "true": True}


def integer(value: object) -> int | None:
    """The id that a value stands for: 3, 3.0 or "3", but neither True nor "03", nor what 64 bits do not hold."""
    if type(value) is int:
        return value if abs(value) <= LARGEST_ID else None
    if isinstance(value, float) and value.is_integer() and abs(value) <= WHOLE:
        return int(value)
    if isinstance(value, str) and _INTEGER.fullmatch(value.strip()):
        return int(value)
    return None


def number(value: object) -> object:
    """A number for one in quotes; anything else stays."""
    if isinstance(value, str) and _DECIMAL.fullmatch(value.strip()):
        return int(value) if _INTEGER.fullmatch(value.strip()) else float(value)
    return value


def is_number(value: object) -> TypeGuard[float]:
    """Whether it is a number; false for integers too large for a float."""
    return type(value) in NUMBERS and abs(value) <= sys.float_info.max  # pyright: ignore[reportArgumentType]


def flag(value: object) -> bool | None:
    """The meaning of `iscrowd`; False if it is missing, None if it is neither 0 nor 1 in any spelling."""
    if value is None or value == "":
        return False
    if isinstance(value, str):
        return _FLAGS.get(value.strip().lower())
    return bool(value) if isinstance(value, bool | int | float) and value in (0, 1) else None


def box(value: object) -> object:
    """The list of numbers for one whose numbers, or which itself, stands in quotes; anything else stays."""
    if isinstance(value, str) and value.strip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return value
    if isinstance(value, list) and not NUMBERS.issuperset(map(type, value)):
        return [number(item) for item in value]
    return value
