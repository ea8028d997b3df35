"""Reads and writes YAML as DVC does: version 1.2, in which `010` is ten and `no` is a word.

The text may be hostile: errors are one line each, aliases cannot expand to more than a limit, and a key that stands
twice in a mapping is refused.
"""

import io
from collections.abc import Container
from typing import Any

from ruamel.yaml import YAML, YAMLError
from ruamel.yaml.constructor import BaseConstructor, SafeConstructor
from ruamel.yaml.nodes import Node

from yolo_core.errors import UserError

MAX_VALUES = 100_000  # with aliases expanded; a few nested ones can exceed any memory


def parse(text: str, name: str) -> Any:
    """The value of a YAML text. Raises UserError with `name` and the line."""
    return _parsed(text, name, "safe", _Values)


def parse_texts(text: str, name: str) -> Any:
    """Like `parse`, but each scalar is text as written: `no`, `010`, `1:30` and `null` stay what they are."""
    return _parsed(text, name, "base", _Texts)


def dump(value: object) -> str:
    """The YAML text of plain values, from which `parse` reads the same values."""
    writer, stream = YAML(), io.StringIO()
    writer.width = 1 << 20  # no line is folded
    writer.allow_unicode = False  # its emitter breaks lines at some of it
    writer.dump(value, stream)
    return stream.getvalue()


class _Twice(Exception):
    def __init__(self, key: object, line: int) -> None:
        self.key, self.line = key, line
        super().__init__()


class _KeysOnce:
    """Refuses a key that is there already; ruamel.yaml's own message holds both values, whatever their size."""

    def check_mapping_key(
        self, node: Node, key_node: Node, mapping: Container[object], key: object, value: object
    ) -> bool:
        if key in mapping:
            raise _Twice(key, key_node.start_mark.line + 1)
        return True

    def check_set_key(self, node: Node, key_node: Node, setting: Container[object], key: object) -> None:
        self.check_mapping_key(node, key_node, setting, key, None)


class _Values(_KeysOnce, SafeConstructor):
    """Plain values by their form: numbers, truth values, dates, text."""


class _Texts(_KeysOnce, BaseConstructor):
    """Text only."""


def _parsed(text: str, name: str, kind: str, constructor: type) -> Any:
    reader = YAML(typ=kind, pure=True)
    reader.Constructor = constructor
    try:
        value = reader.load(text)
    except _Twice as error:
        raise UserError(f"{name}:{error.line}: key {error.key!r} stands twice; remove one of the two") from None
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}" if mark else ""
        raise UserError(f"{name}{where}: not valid YAML ({getattr(error, 'problem', None) or error})") from None
    except RecursionError:
        raise UserError(f"{name}: not usable YAML (nested too deep)") from None
    except (ValueError, TypeError, ArithmeticError, AttributeError, LookupError, AssertionError) as error:
        # Impossible dates, numbers and tags.
        raise UserError(f"{name}: not usable YAML ({str(error) or type(error).__name__})") from None
    if _count(value, {}) > MAX_VALUES:
        raise UserError(f"{name}: not usable YAML (its aliases stand for more than {MAX_VALUES} values)")
    return value


def _count(value: object, known: dict[int, int]) -> int:
    """Values in a tree, shared parts counted each time; a cycle counts as more than the limit."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = MAX_VALUES + 1
        parts = [*value, *value.values()] if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_count(part, known) for part in parts)
    return known[id(value)]
