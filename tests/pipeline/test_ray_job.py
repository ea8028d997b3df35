"""The manifests of RayJobs, checked against KubeRay's schema, and what a RayJob's status means."""

import importlib.util
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from schemas import rayjob_problems

from pipelines.exit_codes import DONE, FAULT, TRY_AGAIN, USER_ERROR
from pipelines.rayjob.manifest import MAX_NAME, RayJob, identity, job_name, manifest
from pipelines.rayjob.outcome import outcome
from pipelines.rayjob.sizes import job_size

P7 = RayJob(
    run="0f3e",
    step="train-yolov4-p7",
    command=["scaled-yolov4", "train", "--model", "yolov4-p7", "-S", "train.hyp={lr0: 0.01}"],
    image="registry/scaled-yolov4:1",
    size=job_size("yolov4-p7"),
    ray_version="2.60.0",
    namespace="ml",
    environment={"MLFLOW_TRACKING_URI": "http://mlflow:5000"},
    node_selector={"pool": "a100"},
)


def pods(job: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The pod specs of head and workers."""
    cluster = job["spec"]["rayClusterSpec"]
    return cluster["headGroupSpec"]["template"]["spec"], cluster["workerGroupSpecs"][0]["template"]["spec"]


@pytest.mark.parametrize(
    "job",
    [P7, replace(P7, queue="gpus"), replace(P7, min_nodes=1), replace(P7, service_account="train", node_selector={})],
    ids=["plain", "queue", "autoscaling", "account"],
)
def test_the_manifest_fits_the_schema(job: RayJob) -> None:
    assert rayjob_problems(manifest(job)) == []


def test_the_schema_catches_a_misspelt_field() -> None:
    job = manifest(P7)
    job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["imagePullPolice"] = "Always"
    job["spec"]["backOffLimit"] = 1
    problems = rayjob_problems(job)
    assert len(problems) == 2
    assert "backOffLimit" in str(problems)
    assert "imagePullPolice" in str(problems)


def test_the_command_survives_the_shell() -> None:
    assert shlex.split(manifest(P7)["spec"]["entrypoint"]) == list(P7.command)


def test_workers_have_what_the_table_says() -> None:
    _, worker = pods(manifest(P7))
    container = worker["containers"][0]
    assert container["resources"]["limits"] == {"cpu": "80", "memory": "640Gi", "nvidia.com/gpu": "8"}
    assert worker["volumes"] == [{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "128Gi"}}]
    assert container["volumeMounts"] == [{"name": "shm", "mountPath": "/dev/shm"}]
    group = manifest(P7)["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    assert group["rayStartParams"] == {"num-gpus": "8", "object-store-memory": str(32 * 2**30)}  # a quarter of 128 GiB
    assert worker["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert worker["nodeSelector"] == {"pool": "a100"}


def test_the_head_does_no_work_and_needs_no_gpu() -> None:
    head, _ = pods(manifest(P7))
    assert "nvidia.com/gpu" not in str(head)
    start = manifest(P7)["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]
    assert start["num-cpus"] == "0"


def test_a_queue_starts_all_nodes_or_none() -> None:
    job = manifest(replace(P7, queue="gpus", min_nodes=1))
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    assert job["spec"]["suspend"] is True
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["enableInTreeAutoscaling"] is False  # Kueue reserves a fixed number
    assert cluster["workerGroupSpecs"][0]["minReplicas"] == cluster["workerGroupSpecs"][0]["maxReplicas"] == 2


def test_autoscaling_ranges_from_the_fewest_to_the_size() -> None:
    cluster = manifest(replace(P7, min_nodes=1))["spec"]["rayClusterSpec"]
    group = cluster["workerGroupSpecs"][0]
    assert cluster["enableInTreeAutoscaling"] is True
    assert (group["minReplicas"], group["replicas"], group["maxReplicas"]) == (1, 1, 2)
    assert manifest(P7)["spec"]["rayClusterSpec"]["enableInTreeAutoscaling"] is False


def test_every_pod_gets_the_secret_and_time_for_a_checkpoint() -> None:
    job = manifest(P7)
    submitter = job["spec"]["submitterPodTemplate"]["spec"]
    for pod in (*pods(job), submitter):
        container = pod["containers"][0]
        assert {"secretRef": {"name": "scaled-yolov4", "optional": True}} in container["envFrom"]
        assert {"name": "MLFLOW_TRACKING_URI", "value": "http://mlflow:5000"} in container["env"]
        assert container["image"] == "registry/scaled-yolov4:1"
    for pod in pods(job):
        stop = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
        assert stop[:2] == ["ray", "stop"]
        assert int(stop[-1]) < pod["terminationGracePeriodSeconds"]
        assert {"livenessProbe", "readinessProbe"} <= set(pod["containers"][0])


def test_pods_carry_the_labels_of_their_run() -> None:
    job = manifest(P7)
    expected = {"app.kubernetes.io/name": "scaled-yolov4", **identity("0f3e", "train-yolov4-p7")}
    for template in (
        job["spec"]["submitterPodTemplate"],
        job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"],
        job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"],
    ):
        assert expected.items() <= template["metadata"]["labels"].items()
        assert template["metadata"]["annotations"]["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"


@given(run=st.text(), step=st.text(), attempt=st.integers(1, 99))
def test_names_and_labels_are_valid_for_any_run_and_step(run: str, step: str, attempt: int) -> None:
    name = job_name(run, step, attempt)
    assert len(name) <= MAX_NAME
    assert re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", name)
    for value in identity(run, step).values():
        assert len(value) <= 63
        assert re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?", value)


def test_names_tell_runs_steps_and_attempts_apart() -> None:
    same, *others = (job_name(*key) for key in [("a", "b", 1), ("ab", "", 1), ("a", "c", 1), ("a", "b", 2)])
    assert same == job_name("a", "b", 1)
    assert len({same, *others}) == 4


def failed(code: int) -> dict[str, str]:
    """As KubeRay relays Ray's message."""
    message = (
        f"Job entrypoint command failed with exit code {code}, last available logs (truncated to 20,000 chars):\nend"
    )
    return {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": "AppFailed", "message": message}


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ({"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}, DONE),
        ({"jobDeploymentStatus": "Complete", "jobStatus": "STOPPED"}, FAULT),
        (failed(1), FAULT),
        (failed(2), USER_ERROR),
        (failed(3), TRY_AGAIN),
        (failed(-15), TRY_AGAIN),  # SIGTERM: its node was taken
        (failed(137), TRY_AGAIN),
        (failed(-11), FAULT),  # SIGSEGV
        ({"jobDeploymentStatus": "Failed", "reason": "SubmissionFailed"}, TRY_AGAIN),
        ({"jobDeploymentStatus": "Failed", "reason": "PreRunningDeadlineExceeded"}, TRY_AGAIN),
        ({"jobDeploymentStatus": "Failed", "reason": "DeadlineExceeded"}, FAULT),
        ({"jobDeploymentStatus": "ValidationFailed", "reason": "ValidationFailed", "message": "no"}, FAULT),
        ({"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "message": "Traceback\nboom"}, FAULT),
    ],
)
def test_a_status_at_the_end_means_an_exit_code(status: dict[str, str], code: int) -> None:
    ended = outcome(status)
    assert ended
    assert ended.code == code
    assert "\n" not in ended.line


@pytest.mark.parametrize("state", ["", "Initializing", "Running", "Retrying", "Suspended", "Waiting"])
def test_a_job_on_its_way_has_no_outcome(state: str) -> None:
    assert outcome({"jobDeploymentStatus": state, "jobStatus": "RUNNING"}) is None


def test_the_message_is_worded_as_in_the_ray_that_is_installed() -> None:
    ray = importlib.util.find_spec("ray")
    assert ray
    assert ray.origin
    source = Path(ray.origin).parent / "dashboard" / "modules" / "job" / "job_supervisor.py"
    assert 'f"failed with exit code {return_code}' in source.read_text()
