"""MLflow: how it is reached, and the tree of runs that one pass of the pipeline leaves there.

A pass is known by `pipeline_id`, so that stages in separate processes, or on separate machines, find the same
root run without handing its id around. Below the root stands one run per stage and model.
A stage speaks to MLflow at once through `stage_run`, or through a journal (`components.tracking.journaled_run`): then
MLflow may be away while it works.
MLflow takes seconds to import: it is imported where it is used.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from components.files import require
from components.params import Params
from components.tracking.journal import Entry
from components.workspace import OUTBOX_VARIABLE, outbox
from yolo_core.errors import TryAgain, UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

PIPELINE_VARIABLE = "SCALED_YOLOV4_PIPELINE_ID"
SETTLE_S = 0.5  # longer than a store takes to show a run that another process has begun to create
PIPELINE_TAG = "scaled_yolov4.pipeline"
STAGE_TAG = "scaled_yolov4.stage"
MODEL_TAG = "scaled_yolov4.model"
INPUTS_TAG = "scaled_yolov4.inputs"
RECORD_TAG = "scaled_yolov4.record"  # the journal that created a run
PARENT_TAG = "mlflow.parentRunId"  # MLflow's own name: its pages show the tree by it

# MLflow refuses larger batches in one call.
METRICS_PER_CALL, PARAMS_PER_CALL, LONGEST_PARAM = 1000, 100, 6000
_UNFIT = re.compile(r"[^\w\-./ :]")  # what MLflow does not take in names

log = logging.getLogger(__name__)


def tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, or mlflow.db in the working folder (as an absolute path)."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path('mlflow.db').absolute()}"


def shown_uri() -> str:
    """The tracking address without user name and password, fit for messages and files."""
    uri = tracking_uri()
    parts = urlsplit(uri)
    return uri.replace(f"{parts.netloc.rpartition('@')[0]}@", "") if "@" in parts.netloc else uri


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

    Telemetry is off, MLflow and Alembic speak only of trouble, and a dead server is found out in seconds.
    """
    uri = tracking_uri()
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    if not uri.startswith("http"):  # MLflow's database layer is chatty at first use
        for name in ("alembic", "mlflow.store.db.utils"):
            logging.getLogger(name).setLevel(logging.WARNING)
    import mlflow

    mlflow.set_tracking_uri(uri)
    return mlflow.MlflowClient(uri)


def probe() -> str:
    """Write one tag to the tracking store and say where that was; UserError when it cannot be done."""
    client = connect()
    with reaching():
        experiment = experiment_id(client, "Default")
        client.set_experiment_tag(experiment, "scaled_yolov4.probe", str(int(time.time())))
    return shown_uri()


@contextlib.contextmanager
def reaching() -> Iterator[None]:
    """Turn MLflow's ways of saying "no answer" (TryAgain) and "not you" (UserError) into one line."""
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
    """Is the server or the database away, or answering with trouble of its own?"""
    text = str(error)
    signs = ("API request to", "unable to open database file", "OperationalError", "database is locked")
    return any(sign in text for sign in signs)


def is_refusal(error: Exception) -> bool:
    """Has MLflow understood what was sent, and does not take it?"""
    from mlflow.exceptions import MlflowException

    if not isinstance(error, MlflowException) or _is_unreachable(error):
        return False
    status = error.get_http_status_code()
    return 400 <= status < 500 and status not in (401, 403, 408, 409, 429)


def pipeline_id(params: Params, data: Path | None) -> str:
    """What this pass of the pipeline is called: equal data and equal parameters, equal id (16 hex digits).

    data: None before they are prepared.

    SCALED_YOLOV4_PIPELINE_ID overrides it; the cluster's pipeline sets it to its own run id.
    """
    if given := os.environ.get(PIPELINE_VARIABLE):
        if not re.fullmatch(r"[\w.:-]{1,100}", given):
            raise UserError(
                f"{PIPELINE_VARIABLE} = {given!r}: only letters, digits and _ . : - are allowed, at most 100"
            )
        return given
    return hashlib.sha256(f"{manifest_digest(data) if data else ''} {params.digest()}".encode()).hexdigest()[:16]


def manifest_digest(data: Path) -> str:
    """SHA-256 (hex) of the manifest of a dataset folder."""
    return hashlib.sha256(require(data / "manifest.json", "prepare").read_bytes()).hexdigest()


def pipeline_run(params: Params, data: Path) -> str:
    """The id of the root run of this pass, found or created."""
    client = connect()
    with reaching():
        experiment = experiment_id(client, params.register_.experiment)
        return root_run(client, experiment, pipeline_id(params, data)).info.run_id


def root_run(client: MlflowClient, experiment: str, pipeline: str, **new: Any) -> Run:
    """The run of a whole pass, found or created; `new` as `find_or_create` takes it."""
    tags = {PIPELINE_TAG: pipeline, STAGE_TAG: "pipeline"}
    return find_or_create(client, experiment, f"pipeline {pipeline[:16]}", tags, settle_s=SETTLE_S, **new)


def experiment_id(client: MlflowClient, name: str) -> str:
    """The id of an experiment, created at first use; beside a database its artifacts go to mlartifacts/."""
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
    """A server decides itself (None); for a database it is the folder mlartifacts beside it or here."""
    uri = tracking_uri()
    if uri.startswith("http"):
        return None
    folder = Path(uri.removeprefix("sqlite:///")).absolute().parent if uri.startswith("sqlite:///") else Path.cwd()
    return (folder / "mlartifacts").as_uri()


def find_or_create(
    client: MlflowClient,
    experiment: str,
    name: str,
    tags: Mapping[str, str],
    settle_s: float = 0,
    *,
    more: Mapping[str, str] | None = None,
    began_ms: int | None = None,
) -> Run:
    """The oldest run with these tags. When two processes create it at once, both settle on the older one.

    settle_s: how long to wait, after creating one, for an older one that is still on its way into the store. more: tags
    that a new one gets as well; began_ms: when it began, if not now.
    """
    if found := _oldest(client, experiment, tags):
        return found
    more = source_tags() if more is None else more
    created = client.create_run(experiment, tags={**tags, **more}, run_name=name, start_time=began_ms)
    time.sleep(settle_s)
    oldest = _oldest(client, experiment, tags) or created
    if oldest.info.run_id != created.info.run_id:
        client.delete_run(created.info.run_id)
    return oldest


def _oldest(client: MlflowClient, experiment: str, tags: Mapping[str, str]) -> Run | None:
    wanted = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
    runs = client.search_runs([experiment], wanted, max_results=10, order_by=["attributes.start_time ASC"])
    return min(runs, key=lambda run: (run.info.start_time, run.info.run_id), default=None)


def source_tags() -> dict[str, str]:
    """What MLflow's pages show as the source of a run."""
    commit = git_commit()
    return {
        "mlflow.source.name": "scaled-yolov4",
        "mlflow.source.type": "LOCAL",
        **({"mlflow.source.git.commit": commit} if commit else {}),
    }


def git_commit() -> str | None:
    """The commit checked out in the working folder; None outside a repository."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


class Recorder:
    """One run being written: what is recorded goes to `send`, as an entry that can be delivered again without harm."""

    def __init__(self, send: Callable[[Entry], None]) -> None:
        self._send = send

    def log(self, metrics: Mapping[str, float | None], step: int | None = None) -> None:
        """Record metrics at a step, in one call; those that are None or NaN are left out."""
        self.log_history([(step or 0, metrics)])

    def log_history(self, rows: Iterable[tuple[int, Mapping[str, float | None]]]) -> None:
        """Record whole curves: pairs of step and metrics."""
        now = now_ms()
        metrics = [
            [_UNFIT.sub("_", name), float(value), now, step]
            for step, values in rows
            for name, value in values.items()
            if value is not None and not math.isnan(value)
        ]
        self._send({"op": "metrics", "metrics": metrics})

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record parameters. One already recorded keeps its first value: MLflow never changes a parameter."""
        texts = {_UNFIT.sub("_", key): str(value)[:LONGEST_PARAM] for key, value in params.items()}
        self._send({"op": "params", "params": texts})

    def tag(self, **tags: str) -> None:
        """Set tags under this product's prefix."""
        self._send({"op": "tags", "tags": {f"scaled_yolov4.{key}": value for key, value in tags.items()}})

    def text(self, content: str, name: str) -> None:
        """Store a text file with the run."""
        self._send({"op": "text", "content": content, "name": name})

    def close(self, status: str) -> None:
        """End the run as FINISHED or FAILED."""
        self._send({"op": "end", "status": status, "time": now_ms()})


class RunRecord(Recorder):
    """A run that is written at once. has_metrics: of an earlier process."""

    def __init__(self, client: MlflowClient, run: Run) -> None:
        super().__init__(partial(deliver, client, run.info.run_id))
        self.run_id: str = run.info.run_id
        self.has_metrics = bool(run.data.metrics)
        self._client = client

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Store a file, or a folder's content, with the run."""
        if path.is_dir():
            self._client.log_artifacts(self.run_id, str(path), folder)
        else:
            self._client.log_artifact(self.run_id, str(path), folder)


class StageRun(RunRecord):
    """The run of a stage and, as `root`, the run of the whole pass above it."""

    def __init__(self, client: MlflowClient, run: Run, root: Run) -> None:
        super().__init__(client, run)
        self.root = RunRecord(client, root)
        self.experiment_id: str = run.info.experiment_id
        self.pipeline: str = root.data.tags[PIPELINE_TAG]


def deliver(client: MlflowClient, run_id: str, entry: Entry) -> None:
    """Write one entry to MLflow. The second time it changes nothing: MLflow keeps one of equal metrics."""
    from mlflow.entities import Metric, Param

    match entry["op"]:
        case "metrics":
            metrics = [Metric(*values) for values in entry["metrics"]]
            for start in range(0, len(metrics), METRICS_PER_CALL):
                client.log_batch(run_id, metrics=metrics[start : start + METRICS_PER_CALL])
        case "params":
            known = client.get_run(run_id).data.params
            items = [Param(key, text) for key, text in entry["params"].items() if key not in known]
            for start in range(0, len(items), PARAMS_PER_CALL):
                client.log_batch(run_id, params=items[start : start + PARAMS_PER_CALL])
        case "tags":
            for key, value in entry["tags"].items():
                client.set_tag(run_id, key, value)
        case "text":
            client.log_text(run_id, entry["content"], entry["name"])
        case "end":
            client.set_terminated(run_id, entry["status"], entry["time"])


@contextlib.contextmanager
def stage_run(
    params: Params, data: Path | None, stage: str, model: str, *, inputs: str | None = None
) -> Iterator[StageRun]:
    """The run of one stage for one model below the root, found or created; FAILED when the block raises.

    A stage that is run again, after a kill for example, goes on in the same run. `inputs` (a digest) keeps
    runs of different inputs apart. Raises TryAgain when MLflow cannot be reached, UserError when it refuses access.
    """
    client = connect()
    with reaching():
        record = _open_stage(client, params, pipeline_id(params, data), stage, model, inputs)
        try:
            yield record
        except BaseException:
            with contextlib.suppress(Exception):  # what went wrong in the block is what matters
                record.close("FAILED")
                record.root.close("FAILED")
            raise
        record.close("FINISHED")
        record.root.close("FINISHED")


def _open_stage(
    client: MlflowClient, params: Params, pipeline: str, stage: str, model: str, inputs: str | None
) -> StageRun:
    experiment = experiment_id(client, params.register_.experiment)
    root = root_run(client, experiment, pipeline)
    tags = {PIPELINE_TAG: pipeline, STAGE_TAG: stage, MODEL_TAG: model, PARENT_TAG: root.info.run_id}
    if inputs:
        tags[INPUTS_TAG] = inputs
    run = find_or_create(client, experiment, f"{stage} {model}", tags)
    for each in (root, run):
        client.update_run(each.info.run_id, status="RUNNING")
    return StageRun(client, run, root)


def now_ms() -> int:
    """The time as MLflow counts it."""
    return int(time.time() * 1000)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} as {"a.b": 1}; lists stay values, empty sections disappear."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat
