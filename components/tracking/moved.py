"""Artifacts follow their database: MLflow records absolute paths, which go wrong when a project is moved or copied.

The artifacts of `<folder>/mlflow.db` are in `<folder>/mlartifacts`. Where the database names that folder of another
place, its records are changed to the one beside it, so that a moved project keeps its models and a copy neither reads
nor writes the original's files.
"""

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from yolo_core.errors import TryAgain, UserError

ARTIFACTS = "mlartifacts"
BUSY_S = 20  # how long to wait for another process that writes
# table -> its columns that hold a location below an experiment's
COLUMNS = {
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
}

log = logging.getLogger(__name__)


def follow(database: Path) -> None:
    """Have the database's records name the artifacts beside it. Raises TryAgain while another process locks it,
    UserError if it cannot be written.

    A single run or model whose files are only in the former folder keeps it.
    """
    if not database.is_file():
        return
    here = database.absolute().parent / ARTIFACTS
    try:
        with closing(sqlite3.connect(database, timeout=BUSY_S)) as connection:
            former = sorted({location for location in _recorded(connection) if _is_elsewhere(location, here)})
            if former:
                _move(connection, former, here)
    except sqlite3.OperationalError as error:
        if "readonly" in str(error):
            raise UserError(
                f"{database}: cannot be written; change its permissions, or set MLFLOW_TRACKING_URI"
            ) from None
        raise TryAgain(f"{database}: cannot be changed after it was moved ({error}); run the same command") from None
    for location in former:
        log.warning("%s: was in %s; its artifacts are those in %s now", database, _path(location).parent, here)


def _recorded(connection: sqlite3.Connection) -> Iterator[str]:
    """The locations of all experiments; none in a database that MLflow has not set up yet."""
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'experiments'").fetchone():
        yield from (
            location for (location,) in connection.execute("SELECT artifact_location FROM experiments") if location
        )


def _is_elsewhere(location: str, here: Path) -> bool:
    """Whether a location is the artifacts' folder of a database in another folder."""
    path = _path(location)
    if path.name != ARTIFACTS or not path.is_absolute() or path == here:
        return False
    return not (path.exists() and here.exists() and path.samefile(here))  # one folder by two names: links, mounts


def _move(connection: sqlite3.Connection, locations: list[str], here: Path) -> None:
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        for former in locations:
            connection.execute(
                "UPDATE experiments SET artifact_location = ? WHERE artifact_location = ?", (here.as_uri(), former)
            )
            for table, columns in COLUMNS.items():
                for column in columns:
                    _move_column(connection, table, column, former, here)


def _move_column(connection: sqlite3.Connection, table: str, column: str, former: str, here: Path) -> None:
    below = f"{former}/"
    query = f"SELECT rowid, {column} FROM {table} WHERE substr({column}, 1, ?) = ?"
    for row, location in connection.execute(query, (len(below), below)).fetchall():
        rest = location.removeprefix(below)
        is_here = (here / unquote(rest)).exists()
        if is_here or not _path(location).exists():
            connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (f"{here.as_uri()}/{rest}", row))


def _path(location: str) -> Path:
    """The local path of a location; a relative one, which is no one's folder, if it is not a file."""
    parts = urlsplit(location)
    return Path(unquote(parts.path)) if parts.scheme == "file" else Path(location if not parts.scheme else ".")
