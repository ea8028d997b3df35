"""Reads YAML that others wrote: whatever is wrong with it is one line, and it cannot ask for more than it is long."""

from typing import Any

import yaml

from yolo_core.errors import UserError

MAX_VALUES = 100_000  # with every alias written out; a few nested ones can stand for more than any memory holds


def parse(text: str, name: str) -> Any:
    """The content of a YAML text; UserError with `name` and the line where it has none."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}" if mark else ""
        raise UserError(f"{name}{where}: not valid YAML ({getattr(error, 'problem', None) or error})") from None
    except RecursionError:
        raise UserError(f"{name}: not usable YAML (nested too deep)") from None
    except (ValueError, OverflowError, TypeError, AttributeError) as error:  # dates and numbers that there are not
        raise UserError(f"{name}: not usable YAML ({error})") from None
    if _count(value, {}) > MAX_VALUES:
        raise UserError(f"{name}: not usable YAML (its aliases stand for more than {MAX_VALUES} values)")
    return value


def _count(value: Any, known: dict[int, int]) -> int:
    """Values in a tree whose parts may stand in it many times; something that holds itself has more than any limit."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = MAX_VALUES + 1
        parts = [*value, *value.values()] if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_count(part, known) for part in parts)
    return known[id(value)]
