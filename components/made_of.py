"""What a result was made of: its report holds digests of its inputs, so that a mix of results is noticed.

DVC and Kubeflow keep results together. By single commands one can train again and register the new detector with the
figures of the old one.
"""

from pathlib import Path

from components.files import read_json, sha256
from yolo_core.atomic import write_json
from yolo_core.errors import UserError

KEY = "made_of"
DIGITS = 12  # of SHA-256: enough to tell files apart


def record(report: Path, **inputs: Path | None) -> None:
    """Add to a report (JSON) what it was made of: files by name, None for one that is optional and was not there."""
    write_json(report, read_json(report) | {KEY: {name: _digest(path) for name, path in inputs.items()}})


def check(report: Path, again: str, **inputs: Path | None) -> None:
    """Raise UserError if a report was made of other files than these.

    again: the command that makes it again. Reports without such a record, of earlier releases, are taken as they are.
    """
    made_of = read_json(report).get(KEY, {}) if report.exists() else {}
    for name, digest in made_of.items():
        path = inputs[name]
        if digest != _digest(path):
            other = f"with another file than {path}" if digest else f"without {path}"
            raise UserError(f"{report}: was made {other if path else f'with a {name} file'}; run `{again}` again")


def _digest(path: Path | None) -> str | None:
    return sha256(path)[:DIGITS] if path and path.exists() else None
