"""Parses untrusted YAML: errors are one line each, and aliases cannot expand to more than a limit."""

import yaml

from yolo_core.errors import UserError

MAX_VALUES = 100_000  # with aliases expanded; a few nested ones can exceed any memory


def parse(text: str, name: str) -> object:
    """The value of a YAML text. Raises UserError with `name` and the line."""
    return _parsed(text, name, yaml.SafeLoader)


def _parsed(text: str, name: str, loader: type[yaml.SafeLoader] | type[yaml.BaseLoader]) -> object:
    try:
        value = yaml.load(text, loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}" if mark else ""
        raise UserError(f"{name}{where}: not valid YAML ({getattr(error, 'problem', None) or error})") from None
    except RecursionError:
        raise UserError(f"{name}: not usable YAML (nested too deep)") from None
    except (ValueError, OverflowError, TypeError, AttributeError) as error:  # impossible dates and numbers
        raise UserError(f"{name}: not usable YAML ({error})") from None
    if _count(value, {}) > MAX_VALUES:
        raise UserError(f"{name}: not usable YAML (its aliases stand for more than {MAX_VALUES} values)")
    return value


def parse_texts(text: str, name: str) -> object:
    """Like `parse`, but each scalar is text as written: `no`, `010`, `1:30` and `null` stay what they are."""
    return _parsed(text, name, yaml.BaseLoader)


def _count(value: object, known: dict[int, int]) -> int:
    """Values in a tree, shared parts counted each time; a cycle counts as more than the limit."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = MAX_VALUES + 1
        parts = [*value, *value.values()] if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_count(part, known) for part in parts)
    return known[id(value)]
