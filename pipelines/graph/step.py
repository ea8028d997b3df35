"""What every step of the pipeline does: run the command of one stage, and show its results as artifacts."""

import base64
import html
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from kfp import dsl

from pipelines.exit_codes import TRY_AGAIN
from pipelines.graph.outcome import note_failure

MAX_ENTRIES = 100  # of a mapping or list that is shown; a longer one is to be read in its file
WAITS_S = (30.0, 60.0)  # before a stage is tried again that ended with exit code 3
LINGERING_S = 5.0  # for what a stage said last; a process that it left behind may hold the pipe open
MIME = {".png": "image/png", ".jpg": "image/jpeg"}


def run_stage(stage: str, params: dsl.Artifact, *flags: str, **options: str | Path) -> None:
    """Run `scaled-yolov4 <stage> --params FILE --option value ... --flag ...`.

    The metadata of `params` are the variables that the run gives to each of its stages. A command that ends with exit
    code 3 is run again, after longer and longer waits; nothing else is.
    Where the command fails, it has said why in its last line, and this process ends with the same exit code.
    """
    given = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "components.cli", stage, "--params", params.path, *given, *flags]
    environment = {**os.environ, **params.metadata}
    code, last = _run(command, environment)
    for wait in WAITS_S:
        if code != TRY_AGAIN:
            break
        print(f"{stage}: trying again in {wait:g} s", flush=True)
        time.sleep(wait)
        code, last = _run(command, environment)
    if code:
        note_failure(params, " ".join([stage, str(options.get("model", ""))]).strip(), last)
        sys.exit(code)


def _run(command: list[str], environment: Mapping[str, str]) -> tuple[int, str]:
    """The exit code and the last line of what the command says of itself, which is passed on as it comes."""
    said = [""]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, errors="replace")
    reader = threading.Thread(target=_pass_on, args=(process.stderr, said), daemon=True)
    reader.start()
    code = process.wait()
    reader.join(LINGERING_S)  # the pipe is left open: to close it would wait for the reader without a limit
    return (code if code >= 0 else 128 - code), said[0]  # ended by a signal: the number a shell would give


def _pass_on(lines: Iterable[str], said: list[str]) -> None:
    for line in lines:
        sys.stderr.write(line)
        sys.stderr.flush()
        said[0] = line.strip() or said[0]


def work_folder(out: dsl.Artifact) -> Path:
    """Where a stage keeps unfinished work: beside its result, so that a retry on the same volume goes on."""
    return Path(out.path).parent / "work"


def gathered(artifacts: list[dsl.Artifact]) -> Path:
    """A folder in which each artifact is an entry, whatever it is called where it lies."""
    folder = Path(tempfile.mkdtemp())
    for number, artifact in enumerate(artifacts):
        (folder / str(number)).symlink_to(Path(artifact.path).absolute())
    return folder


def show(title: str, results: Path, metrics: dsl.Metrics, report: dsl.HTML) -> None:
    """Log the numbers of a JSON or YAML file as metrics, and show all of it with the pictures beside it as a page.

    For a folder, every JSON file in it is shown under its name.
    """
    if results.is_dir():
        document = {path.stem: _parsed(path) for path in sorted(results.glob("*.json"))}
        pictures = []
    else:
        document = _parsed(results)
        pictures = sorted(path for path in results.parent.iterdir() if path.suffix in MIME)
    for name, value in numbers(document):
        metrics.log_metric(name, value)
    Path(report.path).write_text(page(title, document, pictures), encoding="utf-8")


def _parsed(path: Path) -> Any:
    text = path.read_text(encoding="utf-8")
    return yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)


def numbers(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """The finite numbers of a parsed document with dotted names; lists and long tables are left out."""
    if isinstance(value, Mapping) and len(value) <= MAX_ENTRIES:
        for key, inner in value.items():
            yield from numbers(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, int | float) and math.isfinite(value):
        yield name, float(value)


def page(title: str, document: Any, pictures: list[Path]) -> str:
    """An HTML page that needs no other file: pictures are inlined."""
    images = "".join(f"<h2>{html.escape(path.stem)}</h2><img src='{_inline(path)}'>" for path in pictures)
    return f"<!doctype html><meta charset='utf-8'><h1>{html.escape(title)}</h1>{_cell(document)}{images}"


def _cell(value: Any) -> str:
    """A value of a parsed document: a table for a mapping, a line per item for a list, else its text."""
    if isinstance(value, Mapping | list) and len(value) > MAX_ENTRIES:
        return f"{len(value)} entries"
    if isinstance(value, Mapping):
        rows = (f"<tr><th>{html.escape(str(key))}</th><td>{_cell(inner)}</td></tr>" for key, inner in value.items())
        return f"<table>{''.join(rows)}</table>"
    if isinstance(value, list):
        return "<br>".join(_cell(inner) for inner in value)
    return html.escape(f"{value:.6g}" if isinstance(value, float) else str(value))


def _inline(path: Path) -> str:
    return f"data:{MIME[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"
