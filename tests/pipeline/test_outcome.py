"""The end of a run: recorded in MLflow with its reason, its RayJobs gone; and what a step does when its stage fails."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import dsl
from kubernetes_server import KubernetesServer
from mlflow import MlflowClient

from components import parameter_file as parameters
from components.tracking import runs as tracking
from pipelines.graph import step as stage
from pipelines.graph.outcome import note_failure
from pipelines.graph.own_components import finish
from pipelines.graph.parameters import variables
from pipelines.graph.step import run_stage
from pipelines.rayjob import api
from pipelines.rayjob.api import RayJobsApi, connect
from pipelines.rayjob.manifest import RayJob, manifest
from pipelines.rayjob.sizes import TINY

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "params.yaml").read_text()
RUN = "run-1"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlflow_database: Callable[[Path], str]) -> Iterator[Path]:
    """A working folder with a database; a step's process ends with its variables, here they are taken back."""
    before = dict(os.environ)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_database(tmp_path))
    yield tmp_path
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def params(project: Path) -> dsl.Artifact:
    """What the first step leaves."""
    (project / "params").write_text(TEXT)
    return dsl.Artifact(
        uri=str(project / "params"), metadata=variables(RUN, f"sqlite:///{project}/mlflow.db", "image:1")
    )


def ended(state: str = "SUCCEEDED", message: str = "", *, ray_jobs: bool = False, text: str = TEXT) -> None:
    """The last step, as KFP calls it."""
    status = dsl.PipelineTaskFinalStatus(
        state=state,
        pipeline_job_resource_name="job",
        pipeline_task_name="exit-handler-1",
        error_code=1 if message else None,
        error_message=message or None,
    )
    finish.python_func(  # pyright: ignore[reportFunctionMemberAccess]
        run=RUN,
        params_yaml=text,
        overrides=[],
        mlflow_tracking_uri=os.environ["MLFLOW_TRACKING_URI"],
        ray_jobs=ray_jobs,
        status=status,
    )


def recorded(experiment: str = "scaled-yolov4") -> tuple[str, str, str]:
    """Outcome, reason and MLflow's own state of the run."""
    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    found = client.get_experiment_by_name(experiment)
    assert found
    [run] = client.search_runs([found.experiment_id], "tags.`scaled_yolov4.stage` = 'pipeline'")
    tags = run.data.tags
    return tags["scaled_yolov4.outcome"], tags["scaled_yolov4.reason"], run.info.status


def decided(params: dsl.Artifact, project: Path, **actions: str) -> None:
    """Decisions of `retrain`, as it records them."""
    os.environ.update(params.metadata)
    settings = parameters.load(project / "params")
    for model, action in actions.items():
        with tracking.stage_run(settings, project, "retrain", model) as run:
            run.tag(action=action)


def test_a_run_that_changed_nothing_is_recorded_as_unchanged(params: dsl.Artifact, project: Path) -> None:
    decided(params, project, a="unchanged", b="unchanged")
    ended()
    assert recorded() == ("unchanged", "a: unchanged, b: unchanged", "FINISHED")


def test_a_run_that_trained_says_what(params: dsl.Artifact, project: Path) -> None:
    decided(params, project, a="unchanged", b="fine-tune")
    ended()
    ended()  # Kubeflow may run a step again
    assert recorded() == ("succeeded", "a: unchanged, b: fine-tune", "FINISHED")


def test_a_failure_has_the_reason_that_its_step_noted(params: dsl.Artifact, project: Path) -> None:
    note_failure(params, "prepare", "error: nowhere: no such folder")
    ended("FAILED", "Task exit-handler-1 failed.")
    assert recorded() == ("failed", "prepare: error: nowhere: no such folder", "FAILED")


def test_without_a_note_it_is_what_kubeflow_says(project: Path) -> None:
    ended("FAILED", "the node was lost")
    assert recorded() == ("failed", "the node was lost", "FAILED")


def test_parameters_that_cannot_be_read_are_the_reason(project: Path) -> None:
    ended("FAILED", "Task exit-handler-1 failed.", text=TEXT.replace("seed: 0", "seed: -1"))
    outcome, reason, _ = recorded()
    assert outcome == "failed"
    assert "seed = -1" in reason


def test_a_note_that_cannot_be_delivered_does_not_matter(params: dsl.Artifact) -> None:
    params.metadata["MLFLOW_TRACKING_URI"] = "http://127.0.0.1:9"
    note_failure(params, "prepare", "error")


def ray_job(run: str) -> RayJob:
    return RayJob(run=run, step="train", command=["true"], image="i", size=TINY, ray_version="2", namespace="ml")


@pytest.fixture
def server(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubernetesServer]:
    """A cluster with a RayJob of this run and one of another."""
    with KubernetesServer() as running:
        monkeypatch.setenv("KUBECONFIG", str(running.kubeconfig(project / "kubeconfig")))
        (project / "namespace").write_text("ml")
        monkeypatch.setattr(api, "OWN_NAMESPACE", project / "namespace")
        for run in (RUN, "run-2"):
            RayJobsApi("ml", connect()).create(manifest(ray_job(run)))
        yield running


def test_the_rayjobs_of_the_run_are_deleted(server: KubernetesServer) -> None:
    ended("FAILED", "cancelled", ray_jobs=True)
    assert list(server.jobs) == [ray_job("run-2").name]
    assert recorded()[0] == "failed"


def test_a_cluster_that_refuses_does_not_keep_the_outcome_from_being_recorded(
    server: KubernetesServer, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "namespace").unlink()
    with pytest.raises(SystemExit) as end:
        ended("FAILED", "cancelled", ray_jobs=True)
    assert end.value.code == 2
    assert "namespace is missing" in capsys.readouterr().err
    assert recorded() == ("failed", "cancelled", "FAILED")


@pytest.mark.slow
def test_an_unavailable_service_is_waited_for(
    params: dsl.Artifact, project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """`promote` of a version in an MLflow that does not answer: exit code 3."""
    monkeypatch.setattr(stage, "WAITS_S", (0.01,))
    params.metadata["MLFLOW_TRACKING_URI"] = "http://127.0.0.1:9"
    registered = {"registered_model": "scaled-yolov4-yolov4-tiny", "version": 1, "inputs_sha256": "0"}
    (project / "registered").write_text(json.dumps(registered))
    with pytest.raises(SystemExit) as end:
        run_stage("promote", params, registered=project / "registered", data=project, out=project / "out")
    assert end.value.code == 3
    output = capfd.readouterr()
    assert output.out.splitlines() == ["promote: retrying in 0.01 s"]
    assert output.err.count("error: MLflow at http://127.0.0.1:9 cannot be reached") == 2


def test_a_mistake_is_not_tried_again_and_its_reason_is_noted(
    params: dsl.Artifact, project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    wrong: dict[str, Any] = yaml.safe_load(TEXT)
    wrong["prepare"] |= {"source": "coco-dir", "location": str(project / "nowhere")}
    (project / "params").write_text(yaml.safe_dump(wrong))
    with pytest.raises(SystemExit) as end:
        run_stage("prepare", params, out=project / "data")
    assert end.value.code == 2
    output = capfd.readouterr()
    assert "trying again" not in output.out
    ended("FAILED", "Task exit-handler-1 failed.", text=yaml.safe_dump(wrong))
    outcome, reason, _ = recorded()
    assert (outcome, reason) == ("failed", f"prepare: {output.err.strip().splitlines()[-1]}")
    assert "nowhere" in reason
