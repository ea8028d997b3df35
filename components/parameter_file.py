"""Parameter files: a `params.yaml` over the packaged defaults, with overrides of single values.

A file holds only what differs from components/defaults.yaml, which explains every key.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pydantic import ValidationError

from components import yaml_text
from components.parameter_errors import describe
from components.params import Params
from components.workspace import PARAMS
from yolo_core.errors import UserError

DEFAULTS = Path(__file__).with_name("defaults.yaml")


def load(path: Path, overrides: Sequence[str] = ()) -> Params:
    """Read a parameter file and apply `section.key=value` overrides.

    Raises UserError naming the file, the key, the value and what is allowed.
    """
    return ParameterFile.read(path).load(overrides)


@dataclass(frozen=True)
class ParameterFile:
    """A parameter file that was read, and may be loaded with several lists of overrides."""

    path: Path
    content: dict[str, object]
    """Its sections over the defaults, unchecked."""

    @classmethod
    def read(cls, path: Path) -> "ParameterFile":
        """Raises UserError if it cannot be read, or has no sections."""
        return cls(path, merged(defaults(), _sections(_text(path), str(path))))

    @property
    def is_missing(self) -> bool:
        """Whether there is no such file."""
        return not self.path.exists()

    def load(self, overrides: Sequence[str]) -> Params:
        """The parameters. Raises UserError for a wrong key, value or override."""
        data = copy.deepcopy(self.content)
        for item in overrides:
            _set(data, item)
        try:
            return Params.model_validate(data)
        except ValidationError as error:
            raise UserError(f"{self.path}: {describe(error, Params)}") from None


def of_project(path: Path) -> ParameterFile:
    """The parameter file; if it is the project's own and missing, the defaults alone.

    Raises UserError if it cannot be read, or has no sections.
    """
    return ParameterFile(path, defaults()) if path == PARAMS and not path.exists() else ParameterFile.read(path)


def of_values(values: Mapping[str, object]) -> Params:
    """The defaults with these values, section by section."""
    return ParameterFile(PARAMS, merged(defaults(), values)).load([])


def defaults() -> dict[str, object]:
    """The packaged defaults."""
    return _sections(_text(DEFAULTS), DEFAULTS.name)


def merged(base: Mapping[str, object], changes: Mapping[str, object]) -> dict[str, object]:
    """`base` with the values of `changes`, section by section; neither is modified."""
    result = dict(base)
    for key, value in changes.items():
        under = base.get(key)
        result[key] = merged(under, value) if isinstance(under, Mapping) and isinstance(value, Mapping) else value
    return result


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        remedy = "run from the project folder or give --params FILE"
        raise UserError(f"{path}: no such parameter file; {remedy}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None


@lru_cache(maxsize=8)  # parsing takes far longer than all else here, and many callers read the same file
def _sections(text: str, name: str) -> dict[str, object]:
    content = yaml_text.parse(text, name)
    if not isinstance(content, dict):
        found = type(content).__name__
        raise UserError(f"{name}: expected sections such as 'prepare:' and 'train:', found {found}")
    return content


def _set(data: dict[str, object], item: str) -> None:
    key, equals, text = item.partition("=")
    if not equals or not key:
        raise UserError(f"-S {item}: expected key=value, for example -S train.epochs=3")
    *parents, last = key.split(".")
    for part in parents:
        section = data.setdefault(part, {})
        if not isinstance(section, dict):
            raise UserError(f"-S {item}: {part!r} is a value, not a section")
        data = section
    data[last] = yaml_text.parse(text, f"-S {item}")
