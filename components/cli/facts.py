"""The closing line of a command, about its result."""

from collections.abc import Mapping


def facts(result: Mapping[str, object]) -> str:
    """The result in one line: names and values, separated by commas."""
    return ", ".join(f"{key} {_short(value)}" for key, value in result.items())


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
