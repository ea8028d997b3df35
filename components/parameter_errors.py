"""What is wrong with a parameter file, in one line: the first problem that its schema finds."""

import difflib
from collections.abc import Sequence
from typing import get_args

from pydantic import BaseModel, ValidationError


def describe(error: ValidationError, schema: type[BaseModel]) -> str:
    """The first problem of a validation error: key, value and problem. schema: the model that was validated."""
    first = error.errors()[0]
    in_key = first["loc"][-1:] == ("[key]",)  # pydantic's mark of a wrong key of a free mapping, such as per_model
    key = ".".join(str(part) for part in (first["loc"][:-2] if in_key else first["loc"])) or "(top)"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        return f"unknown key {key!r}; {_meant(first['loc'], schema)}{more}"
    if first["type"] == "missing":
        return f"missing key {key!r}{more}"
    message = first["msg"].removeprefix("Value error, ")
    value = "" if in_key or isinstance(first["input"], dict) else f" = {first['input']!r}"
    return f"{key}{value}: {message[0].lower()}{message[1:]}{more}"


def _meant(loc: Sequence[int | str], schema: type[BaseModel]) -> str:
    """What to do about an unknown key: keys of its section that look like it, or keys of this name elsewhere."""
    *parents, last = map(str, loc)
    near = difflib.get_close_matches(last, _keys(_section_at(parents, schema)), n=1)
    meant = [".".join([*parents, name]) for name in near]
    meant = meant or [f"{name}.{last}" for name in _keys(schema) if last in _keys(_section_at([name], schema))]
    return f"did you mean {' or '.join(meant)}?" if meant else "remove it or check its spelling"


def _section_at(parents: Sequence[str], schema: type[BaseModel]) -> type[BaseModel] | None:
    """The section below these keys; None if there is none."""
    here: type[BaseModel] | None = schema
    for part in parents:
        fields = here.model_fields if here else {}
        found = [field for name, field in fields.items() if part in (name, field.alias)]
        here = _section_in(found[0].annotation) if found else here  # else a key of a mapping, such as per_model
    return here


def _section_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_section_in, get_args(annotation))), None)


def _keys(section: type[BaseModel] | None) -> list[str]:
    return [field.alias or name for name, field in section.model_fields.items()] if section else []
