"""Builds the dataset folder aside and moves it into place at the end; never deletes a file that is not ours."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from components.datasets import manifest
from components.files import MANIFEST
from yolo_core.errors import UserError


@contextmanager
def building(out: Path) -> Iterator[Path]:
    """Yield an empty folder beside `out`; on success it replaces `out`, otherwise it is removed.

    Raises UserError if `out` holds anything that `prepare` did not write.
    """
    check_replaceable(out)
    building_at, old = out.with_name(f".{out.name}.building"), out.with_name(f".{out.name}.old")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(building_at, ignore_errors=True)  # left by a killed run
        building_at.mkdir()
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror}); choose another --out") from None
    try:
        yield building_at
        shutil.rmtree(old, ignore_errors=True)
        if out.exists():
            out.rename(old)
        building_at.rename(out)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:  # typically a full disk
        raise UserError(f"{error.filename or out}: {error.strerror or error}; fix it or choose another --out") from None
    finally:
        shutil.rmtree(building_at, ignore_errors=True)


def check_replaceable(out: Path) -> None:
    """Raise UserError unless `out` is absent, empty, or holds a prepared dataset and nothing else."""
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"{out}: is a file; prepare writes a folder, choose another --out")
    present = {path.relative_to(out).as_posix() for path in out.rglob("*") if not path.is_dir()}
    if not present:
        return
    try:
        document = json.loads((out / MANIFEST).read_bytes())
        ours = set(document["files"]) | {MANIFEST} if document["format"] == manifest.FORMAT else set()
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        ours = set()
    foreign = sorted(present - ours)
    if not ours:
        raise UserError(f"{out}: is not empty and not a prepared dataset; move it away or choose another --out")
    if foreign:
        raise UserError(f"{out}: holds {foreign[0]}, which prepare did not write; move it away or choose another --out")
