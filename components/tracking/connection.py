"""The connection to MLflow: its address, clients, experiments, and what its errors mean.

MLflow takes seconds to import: it is imported where it is used.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from components import telemetry
from components.tracking import moved
from components.workspace import OUTBOX_VARIABLE, outbox
from yolo_core.errors import TryAgain, UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient

_SECRET_OPTIONS = re.compile(r"(?<=[?&])(user|password|passfile|sslpassword)=[^&]*&?", re.IGNORECASE)  # of a database
PIPELINE_VARIABLE = "SCALED_YOLOV4_PIPELINE_ID"  # overrides `components.tracking.runs.pipeline_id`


def tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, or mlflow.db in the working folder (as an absolute path)."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path('mlflow.db').absolute()}"


def shown_uri() -> str:
    """The tracking address without user name and password, for messages and files."""
    scheme, mark, rest = tracking_uri().partition("://")
    if rest.startswith("/"):  # a file, whose path may contain @
        return f"{scheme}{mark}{rest}"
    rest = rest.rpartition("@")[2]  # the last one: a password may contain any character
    return f"{scheme}{mark}{_SECRET_OPTIONS.sub('', rest)}"


def environment() -> dict[str, str]:
    """The variables that let a process with another working folder reach the same tracking store."""
    pipeline = os.environ.get(PIPELINE_VARIABLE)
    return {
        "MLFLOW_TRACKING_URI": tracking_uri(),
        OUTBOX_VARIABLE: str(outbox()),
        **({PIPELINE_VARIABLE: pipeline} if pipeline else {}),
    }


def connect() -> MlflowClient:
    """A client of the tracking store and the registry; also sets MLflow's global address.

    Telemetry is off, MLflow and Alembic log warnings only, and an unreachable server is detected within seconds.
    """
    uri = tracking_uri()
    telemetry.turn_off()
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    if not uri.startswith("http"):  # MLflow's database layer is chatty at first use
        for name in ("alembic", "mlflow.store.db.utils"):
            logging.getLogger(name).setLevel(logging.WARNING)
    if database := _database():
        moved.follow(database)
    import mlflow
    from mlflow.exceptions import MlflowException

    mlflow.set_tracking_uri(uri)
    try:
        with reaching():
            return mlflow.MlflowClient(uri)
    except MlflowException as error:  # a database of another release, a file store, an unknown scheme
        reason = str(error).replace(uri, shown_uri()).splitlines()[0]
        raise UserError(f"MLflow at {shown_uri()} cannot be used: {reason}") from None


def probe() -> str:
    """Write one tag to the tracking store and return its address; UserError when that fails."""
    client = connect()
    with reaching():
        experiment = experiment_id(client, "Default")
        client.set_experiment_tag(experiment, "scaled_yolov4.probe", str(int(time.time())))
    return shown_uri()


@contextlib.contextmanager
def reaching() -> Iterator[None]:
    """Turn MLflow's errors for "unreachable" (TryAgain) and "access denied" (UserError) into one line."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        status = error.get_http_status_code()
        if status in (401, 403):
            raise UserError(
                f"MLflow at {shown_uri()} refuses access ({status}); "
                "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            ) from None
        if _is_unreachable(error):
            raise TryAgain(
                f"MLflow at {shown_uri()} cannot be reached; start the server or correct MLFLOW_TRACKING_URI "
                "(without it, mlflow.db in the working folder is used)"
            ) from None
        raise


def _is_unreachable(error: Exception) -> bool:
    """Is the server or the database down, or failing internally?"""
    text = str(error)
    signs = ("API request to", "unable to open database file", "OperationalError", "database is locked")
    return any(sign in text for sign in signs)


def is_refusal(error: Exception) -> bool:
    """Did MLflow understand the request and reject it for good?"""
    from mlflow.exceptions import MlflowException

    if not isinstance(error, MlflowException) or _is_unreachable(error):
        return False
    status = error.get_http_status_code()
    return 400 <= status < 500 and status not in (401, 403, 408, 409, 429)


def experiment_id(client: MlflowClient, name: str) -> str:
    """The id of an experiment, created at first use; with a database, its artifacts go to mlartifacts/ beside it."""
    from mlflow.exceptions import MlflowException

    def find() -> str | None:
        found = client.get_experiment_by_name(name)
        if found and found.lifecycle_stage == "deleted":
            raise UserError(
                f"register.experiment = {name!r}: that experiment was deleted; "
                f"run `mlflow experiments restore -x {found.experiment_id}` or choose another name"
            )
        return found.experiment_id if found else None

    if found := find():
        return found
    try:
        return client.create_experiment(name, artifact_location=_artifact_location())
    except MlflowException:
        if created_meanwhile := find():
            return created_meanwhile
        raise


def _artifact_location() -> str | None:
    """None lets a server decide; for a database, the folder mlartifacts beside its file, or here."""
    uri = tracking_uri()
    if uri.startswith("http"):
        return None
    database = _database()
    return ((database.absolute().parent if database else Path.cwd()) / moved.ARTIFACTS).as_uri()


def _database() -> Path | None:
    """The file of an SQLite database; None for any other store."""
    uri = tracking_uri()
    return Path(uri.removeprefix("sqlite:///").partition("?")[0]) if uri.startswith("sqlite:///") else None
