"""MLflow: how it is reached, and the tree of runs that one pass of the pipeline leaves there.

A pass is known by `pipeline_id`, so that stages in separate processes, or on separate machines, find the same
root run without handing its id around. Below the root stands one run per stage and model.
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
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from components.inputs import require
from components.params import Params
from yolo_core.errors import UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

PIPELINE_VARIABLE = "SCALED_YOLOV4_PIPELINE_ID"
SETTLE_S = 0.5  # longer than a store takes to show a run that another process has begun to create
PIPELINE_TAG = "scaled_yolov4.pipeline"
STAGE_TAG = "scaled_yolov4.stage"
MODEL_TAG = "scaled_yolov4.model"
INPUTS_TAG = "scaled_yolov4.inputs"
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
    """Turn MLflow's ways of saying "no answer" and "not you" into one line."""
    from mlflow.exceptions import MlflowException, RestException

    try:
        yield
    except MlflowException as error:
        status = error.get_http_status_code()
        if status in (401, 403):
            raise UserError(
                f"MLflow at {shown_uri()} refuses access ({status}); "
                "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            ) from None
        if not isinstance(error, RestException) and _is_unreachable(error):
            raise UserError(
                f"MLflow at {shown_uri()} cannot be reached; start the server or correct MLFLOW_TRACKING_URI "
                "(without it, mlflow.db in the working folder is used)"
            ) from None
        raise


def _is_unreachable(error: Exception) -> bool:
    text = str(error)
    return any(sign in text for sign in ("API request to", "unable to open database file", "OperationalError"))


def pipeline_id(params: Params, data: Path) -> str:
    """What this pass of the pipeline is called: equal data and equal parameters, equal id (16 hex digits).

    SCALED_YOLOV4_PIPELINE_ID overrides it; the cluster's pipeline sets it to its own run id.
    """
    if given := os.environ.get(PIPELINE_VARIABLE):
        if not re.fullmatch(r"[\w.:-]{1,100}", given):
            raise UserError(
                f"{PIPELINE_VARIABLE} = {given!r}: only letters, digits and _ . : - are allowed, at most 100"
            )
        return given
    return hashlib.sha256(f"{manifest_digest(data)} {params.digest()}".encode()).hexdigest()[:16]


def manifest_digest(data: Path) -> str:
    """SHA-256 (hex) of the manifest of a dataset folder."""
    return hashlib.sha256(require(data / "manifest.json", "prepare").read_bytes()).hexdigest()


def pipeline_run(params: Params, data: Path) -> str:
    """The id of the root run of this pass, found or created."""
    client = connect()
    with reaching():
        experiment = experiment_id(client, params.register_.experiment)
        return _root(client, experiment, pipeline_id(params, data)).info.run_id


def _root(client: MlflowClient, experiment: str, pipeline: str) -> Run:
    tags = {PIPELINE_TAG: pipeline, STAGE_TAG: "pipeline"}
    return _find_or_create(client, experiment, f"pipeline {pipeline[:16]}", tags, settle_s=SETTLE_S)


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


def _find_or_create(
    client: MlflowClient, experiment: str, name: str, tags: Mapping[str, str], settle_s: float = 0
) -> Run:
    """The oldest run with these tags. When two processes create it at once, both settle on the older one.

    settle_s: how long to wait, after creating one, for an older one that is still on its way into the store.
    """
    if found := _oldest(client, experiment, tags):
        return found
    created = client.create_run(experiment, tags={**tags, **_source_tags()}, run_name=name)
    time.sleep(settle_s)
    oldest = _oldest(client, experiment, tags) or created
    if oldest.info.run_id != created.info.run_id:
        client.delete_run(created.info.run_id)
    return oldest


def _oldest(client: MlflowClient, experiment: str, tags: Mapping[str, str]) -> Run | None:
    wanted = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
    runs = client.search_runs([experiment], wanted, max_results=10, order_by=["attributes.start_time ASC"])
    return min(runs, key=lambda run: (run.info.start_time, run.info.run_id), default=None)


def _source_tags() -> dict[str, str]:
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


class RunRecord:
    """One run being written. A server lost meanwhile does not stop the work: metrics wait until it answers again."""

    def __init__(self, client: MlflowClient, run: Run) -> None:
        self.run_id: str = run.info.run_id
        self.has_metrics = bool(run.data.metrics)  # of an earlier process
        self._client = client
        self._known = dict(run.data.params)
        self._waiting: list[Metric] = []

    def log(self, metrics: Mapping[str, float | None], step: int | None = None) -> None:
        """Record metrics at a step, in one call; those that are None or NaN are left out."""
        self.log_history([(step or 0, metrics)])

    def log_history(self, rows: Iterable[tuple[int, Mapping[str, float | None]]]) -> None:
        """Record whole curves: pairs of step and metrics."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._waiting += [
            Metric(_UNFIT.sub("_", name), float(value), now, step)
            for step, metrics in rows
            for name, value in metrics.items()
            if value is not None and not math.isnan(value)
        ]
        self._deliver()

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record parameters. One already recorded keeps its first value: MLflow never changes a parameter."""
        from mlflow.entities import Param

        texts = {_UNFIT.sub("_", key): str(value)[:LONGEST_PARAM] for key, value in params.items()}
        items = [Param(key, text) for key, text in texts.items() if key not in self._known]
        for start in range(0, len(items), PARAMS_PER_CALL):
            self._client.log_batch(self.run_id, params=items[start : start + PARAMS_PER_CALL])
        self._known |= texts

    def tag(self, **tags: str) -> None:
        """Set tags under this product's prefix."""
        for key, value in tags.items():
            self._client.set_tag(self.run_id, f"scaled_yolov4.{key}", value)

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Store a file, or a folder's content, with the run."""
        if path.is_dir():
            self._client.log_artifacts(self.run_id, str(path), folder)
        else:
            self._client.log_artifact(self.run_id, str(path), folder)

    def text(self, content: str, name: str) -> None:
        """Store a text file with the run."""
        self._client.log_text(self.run_id, content, name)

    def close(self, status: str) -> None:
        """End the run as FINISHED or FAILED. A server that is away only costs the record, not the result."""
        from mlflow.exceptions import MlflowException

        self._deliver()
        try:
            self._client.set_terminated(self.run_id, status)
        except MlflowException as error:
            if not _is_unreachable(error):
                raise
        if self._waiting:
            log.warning("MLflow at %s is away; %d metric values were not recorded", shown_uri(), len(self._waiting))

    def _deliver(self) -> None:
        from mlflow.exceptions import MlflowException

        while self._waiting:
            batch = self._waiting[:METRICS_PER_CALL]
            try:
                self._client.log_batch(self.run_id, metrics=batch)
            except MlflowException as error:
                if not _is_unreachable(error):
                    raise
                log.warning("MLflow at %s does not answer; %d metric values wait", shown_uri(), len(self._waiting))
                return
            del self._waiting[: len(batch)]


class StageRun(RunRecord):
    """The run of a stage and, as `root`, the run of the whole pass above it."""

    def __init__(self, client: MlflowClient, run: Run, root: Run) -> None:
        super().__init__(client, run)
        self.root = RunRecord(client, root)
        self.experiment_id: str = run.info.experiment_id
        self.pipeline: str = root.data.tags[PIPELINE_TAG]


@contextlib.contextmanager
def stage_run(params: Params, data: Path, stage: str, model: str, *, inputs: str | None = None) -> Iterator[StageRun]:
    """The run of one stage for one model below the root, found or created; FAILED when the block raises.

    A stage that is run again, after a kill for example, goes on in the same run. `inputs` (a digest) keeps
    runs of different inputs apart. Raises UserError when MLflow cannot be reached at the start.
    """
    client = connect()
    with reaching():
        record = _open_stage(client, params, pipeline_id(params, data), stage, model, inputs)
        try:
            yield record
        except BaseException:
            record.close("FAILED")
            record.root.close("FAILED")
            raise
        record.close("FINISHED")
        record.root.close("FINISHED")


def _open_stage(
    client: MlflowClient, params: Params, pipeline: str, stage: str, model: str, inputs: str | None
) -> StageRun:
    experiment = experiment_id(client, params.register_.experiment)
    root = _root(client, experiment, pipeline)
    tags = {PIPELINE_TAG: pipeline, STAGE_TAG: stage, MODEL_TAG: model, PARENT_TAG: root.info.run_id}
    if inputs:
        tags[INPUTS_TAG] = inputs
    run = _find_or_create(client, experiment, f"{stage} {model}", tags)
    for each in (root, run):
        client.update_run(each.info.run_id, status="RUNNING")
    return StageRun(client, run, root)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} as {"a.b": 1}; lists stay values, empty sections disappear."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat
