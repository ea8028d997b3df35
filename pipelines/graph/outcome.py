"""Records in MLflow how a pipeline run ended: a failing step notes why, the last step records the outcome."""

import contextlib
import os
from pathlib import Path

from kfp import dsl

from components.parameter_file import load
from components.tracking import connection, runs
from pipelines.graph.parameters import parsed, variables
from yolo_core.errors import UserError

FAILURE_TAG = "scaled_yolov4.failure"
ACTION_TAG = "scaled_yolov4.action"  # of the decision of `retrain`
UNREAD = "scaled-yolov4"  # the experiment of a run whose parameters cannot be read


def note_failure(params: dsl.Artifact, step: str, reason: str) -> None:
    """Record in MLflow why this step fails. Errors in doing so are ignored: the step's own failure matters more."""
    pipeline = params.metadata.get(connection.PIPELINE_VARIABLE)
    if not pipeline:
        return
    os.environ.update(params.metadata)
    with contextlib.suppress(Exception):
        experiment = load(Path(params.path)).experiment
        client = connection.connect()
        root = runs.root_run(client, connection.experiment_id(client, experiment), pipeline)
        client.set_tag(root.info.run_id, FAILURE_TAG, f"{step}: {reason}")


def finish(
    run: str,
    status: dsl.PipelineTaskFinalStatus,
    *,
    params_yaml: str,
    overrides: list[str],
    mlflow_tracking_uri: str,
    ray_jobs: bool,
) -> None:
    """Delete the RayJobs of the run, and record in MLflow how it ended and why; safe to repeat.

    Raises TryAgain while Kubernetes or MLflow is unavailable, UserError if one denies access.
    """
    os.environ.update(variables(run, mlflow_tracking_uri))
    try:
        if ray_jobs:
            _delete_ray_jobs(run)
    finally:
        print(f"finish: {_record(run, status, params_yaml, overrides)}", flush=True)


def _delete_ray_jobs(run: str) -> None:
    from pipelines.rayjob.api import RayJobsApi, connect, own_namespace
    from pipelines.rayjob.runner import delete_all

    for name in delete_all(run, RayJobsApi(own_namespace(), connect())):
        print(f"finish: deleted {name}", flush=True)


def _record(run: str, status: dsl.PipelineTaskFinalStatus, params_yaml: str, overrides: list[str]) -> str:
    """Tag the root run with the outcome and its reason, and end it."""
    unread, experiment = "", UNREAD
    try:
        experiment = parsed(params_yaml, overrides).experiment
    except UserError as error:
        unread = str(error)
    succeeded = status.state == "SUCCEEDED"
    client = connection.connect()
    with connection.reaching():
        experiment_id = connection.experiment_id(client, experiment)
        root = runs.root_run(client, experiment_id, run)
        wanted = f"tags.`{runs.PIPELINE_TAG}` = '{run}' and tags.`{runs.STAGE_TAG}` = 'retrain'"
        decided = client.search_runs([experiment_id], wanted)
        actions = {each.data.tags[runs.MODEL_TAG]: each.data.tags.get(ACTION_TAG, "open") for each in decided}
        if not succeeded:
            outcome = status.state.lower()
            reason = unread or root.data.tags.get(FAILURE_TAG) or status.error_message or "see the steps of the run"
        else:
            outcome = "unchanged" if set(actions.values()) == {"unchanged"} else "succeeded"
            reason = ", ".join(f"{model}: {action}" for model, action in sorted(actions.items()))
        record = runs.RunRecord(client, root)
        record.tag(outcome=outcome, reason=reason)
        record.close("FINISHED" if succeeded else "FAILED")
    return f"{outcome} ({reason})"
