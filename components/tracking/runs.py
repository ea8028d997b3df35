"""The tree of runs that one pass of the pipeline leaves in MLflow, and the recorders that write to them.

A pass is identified by `pipeline_id`, so that stages in separate processes, or on separate machines, find the same
root run without passing its id around. Below the root there is one run per stage and model.
A stage writes to MLflow directly through `stage_run`, or through a journal (`components.tracking.journaled_run`), which
lets it work while MLflow is down.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from components.datasets.digest import dataset_digest
from components.params import Params
from components.tracking.connection import PIPELINE_VARIABLE, connect, experiment_id, reaching
from components.tracking.journal import Entry
from yolo_core.errors import UserError, without_credentials

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

SETTLE_S = 0.5  # longer than a store takes to show a run that another process is creating
PIPELINE_TAG = "scaled_yolov4.pipeline"
STAGE_TAG = "scaled_yolov4.stage"
MODEL_TAG = "scaled_yolov4.model"
INPUTS_TAG = "scaled_yolov4.inputs"
RECORD_TAG = "scaled_yolov4.record"  # the journal that created a run
PARENT_TAG = "mlflow.parentRunId"  # MLflow's own name: its pages show the tree by it

# MLflow rejects larger batches.
METRICS_PER_CALL, PARAMS_PER_CALL, LONGEST_PARAM = 1000, 100, 6000
_NOT_IN_NAMES = re.compile(r"[^\w\-./ :]")  # characters that MLflow rejects in names


def pipeline_id(params: Params, data: Path | None) -> str:
    """The id of this pass of the pipeline: a digest (16 hex digits) of the data and the parameters.

    data: None before they are prepared. SCALED_YOLOV4_PIPELINE_ID overrides the digest; the cluster's pipeline sets it
    to its own run id.
    """
    if given := os.environ.get(PIPELINE_VARIABLE):
        if not re.fullmatch(r"[\w.:-]{1,100}", given):
            raise UserError(
                f"{PIPELINE_VARIABLE} = {given!r}: only letters, digits and _ . : - are allowed, at most 100"
            )
        return given
    return hashlib.sha256(f"{dataset_digest(data) if data else ''} {params.digest()}".encode()).hexdigest()[:16]


def pipeline_run(params: Params, data: Path) -> str:
    """The id of the root run of this pass, found or created."""
    client = connect()
    with reaching():
        experiment = experiment_id(client, params.experiment)
        return root_run(client, experiment, pipeline_id(params, data)).info.run_id


def root_run(
    client: MlflowClient,
    experiment: str,
    pipeline: str,
    *,
    more: Mapping[str, str] | None = None,
    began_ms: int | None = None,
) -> Run:
    """The run of a whole pass, found or created; `more` and `began_ms` as in `find_or_create`."""
    tags = {PIPELINE_TAG: pipeline, STAGE_TAG: "pipeline"}
    name = f"pipeline {pipeline[:16]}"
    return find_or_create(client, experiment, name, tags, settle_s=SETTLE_S, more=more, began_ms=began_ms)


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
    """The oldest run with these tags, created when there is none. Two processes that create it at once agree on one.

    settle_s: how long to wait, after creating one, for an older one to appear in the store. more: additional tags of
    a new run (default: `source_tags`). began_ms: its start, if not now.
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
    """The tags that MLflow's pages show as the source of a run."""
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
    """Writes one run: turns what is recorded into entries for `send`, each safe to deliver twice."""

    def __init__(self, send: Callable[[Entry], None]) -> None:
        self._send = send

    def log(self, metrics: Mapping[str, float | None], step: int | None = None) -> None:
        """Record metrics at a step, in one call; None and NaN are left out."""
        self.log_history([(step or 0, metrics)])

    def log_history(self, rows: Iterable[tuple[int, Mapping[str, float | None]]]) -> None:
        """Record whole curves: pairs of step and metrics."""
        now = now_ms()
        metrics = [
            [_NOT_IN_NAMES.sub("_", name), float(value), now, step]
            for step, values in rows
            for name, value in values.items()
            if value is not None and not math.isnan(value)
        ]
        self._send({"op": "metrics", "metrics": metrics})

    def log_params(self, params: Mapping[str, object]) -> None:
        """Record parameters. One already recorded keeps its value: MLflow never changes a parameter."""
        shown = {key: without_credentials(str(value)) for key, value in params.items()}
        texts = {_NOT_IN_NAMES.sub("_", key): text[:LONGEST_PARAM] for key, text in shown.items()}
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
    """A run that is written to MLflow directly."""

    def __init__(self, client: MlflowClient, run: Run) -> None:
        super().__init__(partial(deliver, client, run.info.run_id))
        self.run_id: str = run.info.run_id
        self.has_metrics = bool(run.data.metrics)  # from an earlier process
        self._client = client

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Store a file, or the content of a folder, with the run."""
        if path.is_dir():
            self._client.log_artifacts(self.run_id, str(path), folder)
        else:
            self._client.log_artifact(self.run_id, str(path), folder)


class StageRun(RunRecord):
    """The run of a stage; `root` is the run of the whole pass above it."""

    def __init__(self, client: MlflowClient, run: Run, root: Run) -> None:
        super().__init__(client, run)
        self.root = RunRecord(client, root)
        self.experiment_id: str = run.info.experiment_id
        self.pipeline: str = root.data.tags[PIPELINE_TAG]


def deliver(client: MlflowClient, run_id: str, entry: Entry) -> None:
    """Write one entry to MLflow. Doing so twice changes nothing: MLflow stores equal metrics once."""
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

    A stage that runs again, after a kill for example, continues in the same run. inputs: a digest that keeps runs of
    different inputs apart. Raises TryAgain when MLflow cannot be reached, UserError when it refuses access.
    """
    client = connect()
    with reaching():
        record = _open_stage(client, params, pipeline_id(params, data), stage, model, inputs)
        try:
            yield record
        except BaseException:
            with contextlib.suppress(Exception):  # the block's exception is the one that matters
                record.close("FAILED")
                record.root.close("FAILED")
            raise
        record.close("FINISHED")
        record.root.close("FINISHED")


def _open_stage(
    client: MlflowClient, params: Params, pipeline: str, stage: str, model: str, inputs: str | None
) -> StageRun:
    experiment = experiment_id(client, params.experiment)
    root = root_run(client, experiment, pipeline)
    tags = {PIPELINE_TAG: pipeline, STAGE_TAG: stage, MODEL_TAG: model, PARENT_TAG: root.info.run_id}
    if inputs:
        tags[INPUTS_TAG] = inputs
    run = find_or_create(client, experiment, f"{stage} {model}", tags)
    for each in (root, run):
        client.update_run(each.info.run_id, status="RUNNING")
    return StageRun(client, run, root)


def now_ms() -> int:
    """The current time in MLflow's unit, ms since the epoch."""
    return int(time.time() * 1000)


def flatten(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """{"a": {"b": 1}} as {"a.b": 1}; lists and weights by class stay values, empty sections disappear."""
    flat: dict[str, object] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and key != "class_weights":  # MLflow refuses some characters of class names
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = value
    return flat
