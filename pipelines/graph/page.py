"""How a step shows its results in Kubeflow: the numbers as metrics, everything as one HTML page."""

import base64
import html
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml
from kfp import dsl

MAX_ENTRIES = 100  # of a mapping or list that is shown; longer ones are left to their file
MIME = {".png": "image/png", ".jpg": "image/jpeg"}


def show(title: str, results: Path, metrics: dsl.Metrics, report: dsl.HTML) -> None:
    """Log the numbers in a JSON or YAML file as metrics, and show the file and the pictures beside it as a page.

    In a folder, every JSON file is shown under its name.
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


def _parsed(path: Path) -> object:
    text = path.read_text(encoding="utf-8")
    return yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)


def numbers(value: object, name: str = "") -> Iterator[tuple[str, float]]:
    """The finite numbers in a parsed document with dotted names; lists and long mappings are skipped."""
    if isinstance(value, Mapping) and len(value) <= MAX_ENTRIES:
        for key, inner in value.items():
            yield from numbers(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, int | float) and math.isfinite(value):
        yield name, float(value)


def page(title: str, document: object, pictures: list[Path]) -> str:
    """A self-contained HTML page: pictures are inlined."""
    images = "".join(f"<h2>{html.escape(path.stem)}</h2><img src='{_inline(path)}'>" for path in pictures)
    return f"<!doctype html><meta charset='utf-8'><h1>{html.escape(title)}</h1>{_cell(document)}{images}"


def _cell(value: object) -> str:
    """A value in a parsed document: a table for a mapping, a line per item for a list, else its text."""
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
