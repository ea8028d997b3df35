"""Unpacks zip archives that may be hostile: nothing leaves the folder, and the unpacked size is limited."""

import lzma
import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from yolo_core.errors import UserError
from yolo_core.progress import Progress

MAX_RATIO = 20  # unpacked to packed bytes of an archive; JSON reaches about 4
MAX_ENTRIES = 1_000_000
CHUNK_BYTES = 1 << 20


def extract(archive: Path, folder: Path, allowed: tuple[str, ...], progress: Progress) -> None:
    """Unpack into `folder`; existing files of the right size are kept, so that a killed run resumes.

    allowed: top-level folders that entries may be in. Raises UserError for damaged archives, for entries that are
    absolute, contain "..", are links or are elsewhere, and for archives that unpack to far more than their size.
    """
    try:
        with zipfile.ZipFile(archive) as source:
            entries = [entry for entry in source.infolist() if not entry.filename.endswith("/")]
            _check(archive, entries, allowed)
            _check_room(archive, entries, folder)
            for entry in progress(entries, f"unpack {archive.name}", total=len(entries)):
                _extract_one(source, entry, folder)
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, UnicodeDecodeError) as error:
        raise UserError(f"{archive}: damaged archive ({error}); delete it and run again") from None
    except OSError as error:
        raise UserError(f"{folder}: {archive.name} cannot be unpacked there ({error.strerror or error})") from None


def _check(archive: Path, entries: list[zipfile.ZipInfo], allowed: tuple[str, ...]) -> None:
    """Refuse a bad archive before anything is written."""
    for entry in entries:
        problem = _problem(entry, allowed)
        if problem:
            raise UserError(f"{archive}: refused, entry {entry.filename[:200]!r} {problem}")
    unpacked = sum(entry.file_size for entry in entries)
    if len(entries) > MAX_ENTRIES or unpacked > MAX_RATIO * max(archive.stat().st_size, CHUNK_BYTES):
        raise UserError(f"{archive}: refused, {len(entries)} entries would unpack to {unpacked / 1e9:.1f} GB")


def _problem(entry: zipfile.ZipInfo, allowed: tuple[str, ...]) -> str | None:
    path = PurePosixPath(entry.filename)
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        return "is a link or a special file"
    if not path.parts or path.is_absolute() or ".." in path.parts or "\\" in entry.filename or ":" in path.parts[0]:
        return "points outside the folder"
    if len(path.parts) < 2 or path.parts[0] not in allowed:
        return f"is outside {' and '.join(allowed)}"
    if entry.flag_bits & 1:
        return "is encrypted"
    return None


def _check_room(archive: Path, entries: list[zipfile.ZipInfo], folder: Path) -> None:
    needed = sum(entry.file_size for entry in entries if not _is_there(folder / entry.filename, entry))
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(f"{folder}: {free / 1e9:.1f} GB free, unpacking {archive.name} needs {needed / 1e9:.1f} GB")


def _is_there(target: Path, entry: zipfile.ZipInfo) -> bool:
    return target.is_file() and target.stat().st_size == entry.file_size


def _extract_one(source: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path) -> None:
    """Write an entry to a temporary file and rename it; refuses folders that are links out of `folder`."""
    target = folder / entry.filename
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.parent.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{target.parent}: is a link out of {folder}; remove it and run again")
    if _is_there(target, entry):
        return
    partial = target.with_name(f".{target.name}.part")
    with source.open(entry) as packed, partial.open("wb") as file:
        shutil.copyfileobj(packed, file, CHUNK_BYTES)  # the reader stops at the checked size
    partial.replace(target)
