"""Artifacts follow their database: MLflow records absolute paths, which go wrong when a project is moved or copied.

The artifacts of `<folder>/mlflow.db` are in `<folder>/mlartifacts`, those of MLflow's own experiment Default in
`<folder>/mlruns/0`. Where the database names such a folder elsewhere, its records are changed to the one beside it, so
that a moved project keeps its models and a copy neither reads nor writes the original's files.
"""

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from yolo_core.errors import TryAgain, UserError

ARTIFACTS = "mlartifacts"
FOLDERS = (Path(ARTIFACTS), Path("mlruns/0"))  # beside the database
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
    project = database.absolute().parent
    try:
        with closing(sqlite3.connect(database, timeout=BUSY_S)) as connection:
            found = {location: _followed(location, project) for location in _recorded(connection)}
            moves = {former: here for former, here in sorted(found.items()) if here}
            if moves:
                _move(connection, moves)
    except sqlite3.OperationalError as error:
        if "readonly" in str(error):
            raise UserError(
                f"{database}: cannot be written; change its permissions, or set MLFLOW_TRACKING_URI"
            ) from None
        raise TryAgain(f"{database}: cannot be changed after it was moved ({error}); run the same command") from None
    for former, here in moves.items():
        log.warning("%s: artifacts moved from %s; their paths now point to %s", database, _path(former), here)


def is_same_database(recorded: str, now: str) -> bool:
    """Whether two addresses of MLflow are one, or name one database file before and after its project was moved."""
    former, current = _path(recorded), _path(now)
    is_file = urlsplit(recorded).scheme == urlsplit(now).scheme == "sqlite"
    return recorded == now or (is_file and former.name == current.name and current.is_file() and not former.exists())


def _recorded(connection: sqlite3.Connection) -> Iterator[str]:
    """The locations of all experiments; none in a database that MLflow has not set up yet."""
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'experiments'").fetchone():
        yield from (
            location for (location,) in connection.execute("SELECT artifact_location FROM experiments") if location
        )


def _followed(location: str, project: Path) -> Path | None:
    """The folder beside the database that replaces a location of the same name elsewhere; None for all others."""
    path = _path(location)
    for name in FOLDERS:
        if path.is_absolute() and path.parts[-len(name.parts) :] == name.parts:
            former = path.parents[len(name.parts) - 1]
            is_here = former.exists() and former.samefile(project)  # one folder by two names: links, mounts
            return None if is_here else project / name
    return None


def _move(connection: sqlite3.Connection, moves: dict[str, Path]) -> None:
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        for former, here in moves.items():
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
    if parts.scheme == "sqlite":  # sqlite:///relative, sqlite:////absolute; not quoted
        return Path(location.removeprefix("sqlite:///"))
    return Path(unquote(parts.path)) if parts.scheme == "file" else Path(location if not parts.scheme else ".")
