"""The files of a project: their texts, what they would change, and writing them."""

import difflib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from components import dvc_file, telemetry, yaml_text
from components.parameter_file import defaults
from components.project.proposal import Choice
from components.project.survey import Survey
from components.workspace import PARAMS
from yolo_core.atomic import write_text
from yolo_core.errors import UserError

DVC_FILE, IGNORED, README = Path("dvc.yaml"), Path(".gitignore"), Path("README.md")
IGNORE = ("/data/", "/outputs/", "/runs/", "/mlflow.db*", "/mlartifacts/", "/dvc_plots/")
PLAIN = re.compile(r"[A-Za-z0-9_./~-]+")
COMMENT_AT = 32  # column
CLASSES_SHOWN = 5
PARAMS_HEADER = """\
# What differs from the defaults; `scaled-yolov4 parameters` shows all parameters with their values.
# Written by `scaled-yolov4 init`; change what you like.

"""


def params_text(choices: Sequence[Choice]) -> str:
    """`params.yaml`, in the order of the defaults; each reason is a comment."""
    tree: dict[str, Any] = {}
    for choice in choices:
        *parents, last = choice.key.split(".")
        section = tree
        for part in parents:
            section = section.setdefault(part, {})
        section[last] = choice
    return PARAMS_HEADER + "\n".join(_lines(tree, defaults())) + "\n"


def dvc_text(data: list[str], weights: str | None) -> str:
    """`dvc.yaml`. data: folders of images and labels. weights: local file to start from."""
    start = [weights] if weights else []
    read = {"prepare": data, "evolve": start, "train": start}
    return dvc_file.of_project(read)


def ignore_text() -> str:
    """`.gitignore`: the present one, and what it lacks of the stages' results."""
    present = IGNORED.read_text(encoding="utf-8") if IGNORED.exists() else ""
    lines = present.splitlines()
    missing = [line for line in IGNORE if line not in lines]
    return "\n".join([*lines, *missing]) + "\n" if missing else present


def readme_text(name: str, survey: Survey, duration: str) -> str:
    """`README.md`: the commands of the project."""
    names = list(survey.classes)
    shown = ", ".join(names[:CLASSES_SHOWN]) + (
        f" and {len(names) - CLASSES_SHOWN} more" if names[CLASSES_SHOWN:] else ""
    )
    return f"""\
# {name}

A detector of {shown}, trained with scaled-yolov4.

    dvc repro                           # run what changed; the training takes {duration}
    scaled-yolov4 summary               # results, and where everything is
    scaled-yolov4 predict photo.jpg     # also folders, videos and cameras

`params.yaml` holds what differs from the defaults; `scaled-yolov4 parameters` shows all parameters.
"""


def changes(texts: Mapping[Path, str]) -> list[str]:
    """The lines of a unified diff from the present files."""
    found = []
    for path, text in texts.items():
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        found += difflib.unified_diff(
            before.splitlines(), text.splitlines(), f"{path}, now", f"{path}, proposed", lineterm="", n=1
        )
    return found


def write(texts: Mapping[Path, str]) -> None:
    """Write the files, and make this folder one of DVC."""
    for path, text in texts.items():
        write_text(path, text)
    _init_dvc()


def is_project() -> bool:
    """Whether this folder has parameters or stages already."""
    return PARAMS.exists() or DVC_FILE.exists()


def _lines(tree: Mapping[str, Any], order: Mapping[str, Any], indent: str = "") -> Iterable[str]:
    for key in [*(key for key in order if key in tree), *(key for key in tree if key not in order)]:
        value = tree[key]
        if isinstance(value, Choice):
            yield _line(f"{indent}{key}: {_scalar(value.value)}", value.reason)
            continue
        yield f"{indent}{key}:"
        below = order.get(key)
        yield from _lines(value, below if isinstance(below, Mapping) else {}, indent + "  ")


def _line(text: str, reason: str) -> str:
    return f"{text:<{COMMENT_AT - 2}}  # {reason}" if reason else text


def _scalar(value: object) -> str:
    """A value in one line of YAML."""
    if isinstance(value, list):
        return f"[{', '.join(map(_scalar, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_scalar(key)}: {_scalar(item)}' for key, item in value.items())}}}"
    if isinstance(value, str) and PLAIN.fullmatch(value) and yaml_text.parse(value, "value") == value:
        return value
    if isinstance(value, str) and not value.isprintable():
        return yaml_text.dump({"x": value}).removeprefix("x: ").rstrip("\n")
    return json.dumps(value, ensure_ascii=False)


def _init_dvc() -> None:
    """Make this folder one of DVC, unless it is; without Git, DVC works too."""
    if _dvc("root") == 0:
        return
    top = _git_root()
    kind = ["--no-scm"] if top is None else [] if top == Path.cwd() else ["--subdir"]
    for command in (["init", *kind], ["config", "core.analytics", "false"], ["config", "core.check_update", "false"]):
        if _dvc(*command):
            raise UserError(f"`dvc {' '.join(command)}` failed; run it here, then `dvc repro`")


def _git_root() -> Path | None:
    """The root of the Git repository around this folder; None outside of one, or without Git."""
    if shutil.which("git") is None:
        return None
    found = subprocess.run(["git", "rev-parse", "--show-toplevel"], capture_output=True, text=True, check=False)
    return None if found.returncode else Path(found.stdout.strip())


def _dvc(*words: str) -> int:
    """Exit code of a command of DVC."""
    telemetry.turn_off()
    command = [sys.executable, "-m", "dvc", *words, "--quiet"]
    return subprocess.run(command, capture_output=True, check=False).returncode
