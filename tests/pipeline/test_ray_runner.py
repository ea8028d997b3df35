"""A RayJob against a Kubernetes API server: created once, followed, found again, deleted on cancellation."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from gateway import KeptPushes
from kubernetes.client import ApiClient, Configuration
from kubernetes_server import KubernetesServer
from loopback import Fault
from schemas import FOLDER, rayjob_problems
from waiting import LIMIT_S, join, until

from components.monitoring import metrics
from components.monitoring.metrics import GATEWAY_VARIABLE
from pipelines.exit_codes import FAULT, TRY_AGAIN, USER_ERROR
from pipelines.rayjob.api import RayJobsApi
from pipelines.rayjob.manifest import RayJob
from pipelines.rayjob.runner import CANCELLED, RunnerSettings, delete_all, run
from pipelines.rayjob.sizes import job_size
from yolo_core.errors import TryAgain, UserError

JOB = RayJob(
    run="run-1",
    step="train-yolov4-tiny",
    command=["scaled-yolov4", "train"],
    image="image",
    size=job_size("yolov4-tiny"),
    ray_version="2.60.0",
    namespace="ml",
)
QUICK = RunnerSettings(poll=0.3, heartbeat=LIMIT_S, delete_timeout=LIMIT_S, backoff=0.05, attempts=3, overrun=LIMIT_S)
RUNNING = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}
SUCCEEDED = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}


def failed(code: int) -> dict[str, str]:
    message = f"Job entrypoint command failed with exit code {code}. No logs available."
    return {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": "AppFailed", "message": message}


@pytest.fixture
def server() -> Iterator[KubernetesServer]:
    check = rayjob_problems if (FOLDER / "ray.io_rayjobs.yaml").exists() else lambda _: []
    with KubernetesServer(check) as running:
        yield running


class Run:
    """`ray_runner.run` in a thread: its lines, its exit code, its exception."""

    def __init__(
        self, server: KubernetesServer, job: RayJob = JOB, settings: RunnerSettings = QUICK, wait: float = LIMIT_S
    ):
        configuration = Configuration(host=server.url)
        configuration.retries = False  # pyright: ignore[reportAttributeAccessIssue]
        self.client = ApiClient(configuration)
        self.api = RayJobsApi("ml", self.client, retry_for=wait)
        self.lines: list[str] = []
        self.code: int | None = None
        self.error: Exception | None = None
        self.thread = threading.Thread(target=self._run, args=(job, settings), daemon=True)
        self.thread.start()

    def _run(self, job: RayJob, settings: RunnerSettings) -> None:
        try:
            self.code = run(job, self.api, settings=settings, report=self.lines.append)
        except Exception as error:
            self.error = error

    def until_printed(self, words: str) -> None:
        until(lambda: any(words in line for line in self.lines), words)

    def ended(self) -> int:
        join(self.thread)
        if self.error:
            raise self.error
        assert self.code is not None
        return self.code


def posts(server: KubernetesServer) -> int:
    return sum(method == "POST" for method, _ in server.requests)


def test_from_creation_to_the_end_with_states_and_log(server: KubernetesServer) -> None:
    following = Run(server)
    name = server.wait_for_job()
    cluster = {"desiredWorkerReplicas": 1, "readyWorkerReplicas": 0}
    server.status(name, jobDeploymentStatus="Initializing", rayClusterStatus=cluster)
    following.until_printed("0 of 1 GPU nodes")
    server.status(name, **RUNNING)
    server.log(name, "epoch 1", "epoch 2")
    following.until_printed("epoch 2")
    server.log(name, "epoch 3")
    server.status(name, **SUCCEEDED)
    assert following.ended() == 0
    assert [line for line in following.lines if line.startswith("epoch")] == ["epoch 1", "epoch 2", "epoch 3"]
    assert following.lines[-1] == f"{name}: done"
    assert list(server.jobs) == [name]  # it stays until its time is over, for whoever looks


def test_the_time_in_the_queue_is_reported(server: KubernetesServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "TIMEOUT_S", LIMIT_S)
    waited = [time.time()]
    with KeptPushes() as gateway:
        monkeypatch.setenv(GATEWAY_VARIABLE, gateway.url)
        following = Run(server)
        name = server.wait_for_job()
        server.status(name, jobDeploymentStatus="Suspended")
        following.until_printed("Suspended")
        waited.append(time.time())
        server.status(name, jobDeploymentStatus="Waiting")
        following.until_printed("Waiting")
        waited.append(time.time())
        assert not gateway.pushes
        server.status(name, **RUNNING)
        until(lambda: len(gateway.pushes) == 1, "the first push")
        server.jobs[name]["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
        waited.append(time.time())
        server.status(name, jobDeploymentStatus="Suspended")
        following.until_printed("Suspended, job running")
        server.status(name, **RUNNING)
        until(lambda: len(gateway.pushes) == 2, "the second push")
        waited.append(time.time())
        server.status(name, **SUCCEEDED)
        assert following.ended() == 0
    reported = [figures["scaled_yolov4_job_queue_seconds"] for method, _, figures in gateway.pushes if method == "PUT"]
    assert len(reported) == 2
    requested, queued, admitted, taken_back, ended = waited
    assert admitted - queued <= reported[0] <= taken_back - requested  # since the job was made
    assert reported[1] <= ended - taken_back  # since it was taken back, not since it was made
    assert {path for _, path, _ in gateway.pushes} == {"/metrics/job/scaled_yolov4_jobs/stage/train-yolov4-tiny"}
    assert gateway.pushes[-1][0] == "DELETE"


@pytest.mark.parametrize("code", [1, USER_ERROR])
def test_a_fault_and_a_user_error_are_not_retried(server: KubernetesServer, code: int) -> None:
    following = Run(server)
    server.status(server.wait_for_job(), **failed(code))
    assert following.ended() == code
    assert posts(server) == 1


def test_try_again_is_retried_under_another_name(server: KubernetesServer) -> None:
    following = Run(server)
    first = server.wait_for_job()
    server.status(first, **failed(TRY_AGAIN))
    second = server.wait_for_job(number=2)
    assert (first[-2:], second[-2:]) == ("-1", "-2")
    server.status(second, **SUCCEEDED)
    assert following.ended() == 0


def test_attempts_end(server: KubernetesServer) -> None:
    following = Run(server)
    for number in (1, 2, 3):
        server.wait_for_job(number=number)
        server.status(list(server.jobs)[number - 1], jobDeploymentStatus="Failed", reason="SubmissionFailed")
    assert following.ended() == TRY_AGAIN
    assert len(server.jobs) == 3


def test_the_same_step_of_the_same_run_finds_its_job(server: KubernetesServer) -> None:
    first = Run(server)
    name = server.wait_for_job()
    server.status(name, **failed(TRY_AGAIN))
    name = server.wait_for_job(number=2)
    second = Run(server)  # as after a restart, while the second attempt runs
    server.status(name, **SUCCEEDED)
    assert (first.ended(), second.ended()) == (0, 0)
    assert len(server.jobs) == 2


@pytest.mark.parametrize("finalizer", [False, True])  # KubeRay's own keeps a deleted job for a while
def test_a_job_deleted_by_another_is_a_fault(server: KubernetesServer, finalizer: bool) -> None:
    server.finalizer = finalizer
    following = Run(server)
    name = server.wait_for_job()
    server.status(name, **RUNNING)
    following.until_printed("running")
    RayJobsApi("ml", following.client).delete(name, retry_for=LIMIT_S)
    assert following.ended() == FAULT
    assert "deleted" in following.lines[-1]
    assert posts(server) == 1


@pytest.mark.parametrize("runs", [False, True])  # before the job exists, and while it runs
def test_cancelling_deletes_the_job(server: KubernetesServer, runs: bool) -> None:
    following = Run(server)
    if runs:
        server.status(server.wait_for_job(), **RUNNING)
        following.until_printed("running")
    following.api.cancelled.set()
    assert following.ended() == CANCELLED
    assert server.jobs == {}


def test_cancelling_works_while_the_server_fails(server: KubernetesServer) -> None:
    server.faults.append(Fault("DELETE", "rayjobs", status=500, times=2))
    following = Run(server)
    server.wait_for_job()
    following.api.cancelled.set()
    assert following.ended() == CANCELLED
    assert server.jobs == {}


def test_a_job_that_is_still_being_deleted_is_waited_for(server: KubernetesServer) -> None:
    server.finalizer = True
    cancelled = Run(server)
    name = server.wait_for_job()
    cancelled.api.cancelled.set()
    assert cancelled.ended() == CANCELLED
    again = Run(server)
    again.until_printed("being deleted")
    server.let_go(name)
    until(lambda: posts(server) == 2, "a second job")
    server.status(server.wait_for_job(), **SUCCEEDED)
    assert again.ended() == 0


@pytest.mark.parametrize(
    "fault",
    [
        Fault("POST", "rayjobs", status=500, times=2),
        Fault("POST", "rayjobs", status=503, done=True),  # created, although the answer is an error
        Fault("POST", "rayjobs", status=0, done=True),  # created, but the answer is lost
        Fault("POST", "rayjobs", status=0),
        Fault("GET", "rayjobs/", status=502, times=3),
        Fault("GET", "watch", status=0, times=3),
        Fault("GET", "watch", status=410, times=2),
        Fault("GET", "watch", status=500, times=2),
        Fault("GET", "labelSelector=scaled", status=429),
        Fault("GET", "/log", status=500, times=2),
        Fault("GET", "/pods", status=0, times=2),
        Fault("GET", "rayjobs/", delay=0.5),
    ],
    ids=lambda fault: f"{fault.method} {fault.pattern} {fault.status}{' done' * fault.done}",
)
def test_transient_failures_of_the_server_are_retried(server: KubernetesServer, fault: Fault) -> None:
    server.faults.append(fault)
    following = Run(server)
    name = server.wait_for_job()
    server.status(name, **RUNNING)
    server.log(name, "one")
    following.until_printed("one")
    until(lambda: fault.times == 0, "the fault")
    server.log(name, "two")
    server.status(name, **SUCCEEDED)
    assert following.ended() == 0
    assert [line for line in following.lines if line in ("one", "two")] == ["one", "two"]
    assert len(server.jobs) == 1


def test_a_watch_that_the_server_has_forgotten_is_restarted(server: KubernetesServer) -> None:
    following = Run(server)
    name = server.wait_for_job()
    server.status(name, **RUNNING)
    following.until_printed("running")
    server.forget()
    server.status(name, **SUCCEEDED)
    assert following.ended() == 0


def test_a_server_that_stays_down_is_try_again(server: KubernetesServer) -> None:
    server.faults.append(Fault("GET", "rayjobs/", status=503, times=1000))
    following = Run(server, wait=0.5)
    with pytest.raises(TryAgain, match="503"):
        following.ended()


@pytest.mark.parametrize(("status", "words"), [(401, "401"), (403, "rayjobs.ray.io"), (404, "KubeRay operator")])
def test_a_refusal_is_one_line_with_its_fix(server: KubernetesServer, status: int, words: str) -> None:
    server.faults.append(Fault("POST", "rayjobs", status=status))
    with pytest.raises(UserError, match=words) as refused:
        Run(server).ended()
    assert "\n" not in str(refused.value)


def test_a_manifest_that_kubernetes_refuses_is_a_fault() -> None:
    with KubernetesServer(check=lambda _: ["spec.entrypoint: too long"]) as server:
        following = Run(server)
        assert following.ended() == FAULT
        assert "spec.entrypoint: too long" in following.lines[-1]


def test_a_job_that_never_starts_is_given_up(server: KubernetesServer) -> None:
    job = RayJob(**{**vars(JOB), "start_within": 1})
    following = Run(server, job, RunnerSettings(poll=0.1, overrun=-0.9, attempts=1, delete_timeout=LIMIT_S))
    assert following.ended() == TRY_AGAIN
    assert server.jobs == {}


def test_a_heartbeat_while_nothing_happens(server: KubernetesServer) -> None:
    following = Run(server, settings=RunnerSettings(poll=0.1, heartbeat=0.3))
    name = server.wait_for_job()
    server.status(name, **RUNNING)
    until(lambda: sum("Running" in line for line in following.lines) >= 3, "two signs of life")
    assert re.search(r"Running, job running \(0:\d\d:\d\d\)", following.lines[-1])
    server.status(name, **SUCCEEDED)
    assert following.ended() == 0


def test_the_jobs_of_a_run_are_cleaned_up(server: KubernetesServer) -> None:
    steps = [("run-1", "train-a"), ("run-1", "evolve"), ("run-2", "train-a")]
    for number, (run_id, step) in enumerate(steps, start=1):
        following = Run(server, RayJob(**{**vars(JOB), "run": run_id, "step": step}))
        server.status(server.wait_for_job(number=number), **SUCCEEDED)
        assert following.ended() == 0
    assert len(delete_all("run-1", following.api)) == 2
    assert len(server.jobs) == 1


FOLLOWER = """
import sys
from pathlib import Path
from pipelines.rayjob.sizes import job_size
from pipelines.rayjob.manifest import RayJob
from pipelines.rayjob.api import RayJobsApi, connect
from pipelines.rayjob.runner import RunnerSettings, run
job = RayJob("run-1", "train-yolov4-tiny", ["true"], "image", job_size("yolov4-tiny"), "2.60.0", "ml")
sys.exit(run(job, RayJobsApi("ml", connect()), settings=RunnerSettings(poll=0.3)))
"""


@pytest.fixture
def follower(server: KubernetesServer, tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen]]:
    """Starts processes that follow the same step."""
    environment = os.environ | {"KUBECONFIG": str(server.kubeconfig(tmp_path / "kubeconfig"))}
    started: list[subprocess.Popen] = []

    def start() -> subprocess.Popen:
        command = [sys.executable, "-u", "-c", FOLLOWER]
        root = Path(__file__).parents[2]
        started.append(subprocess.Popen(command, env=environment, cwd=root, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_killed_follower_is_followed_by_another(server: KubernetesServer, follower: Callable) -> None:
    first = follower()
    name = server.wait_for_job()
    server.status(name, **RUNNING)
    server.log(name, "epoch 1")
    assert any("epoch 1" in line for line in first.stdout)
    first.send_signal(signal.SIGKILL)
    first.wait(LIMIT_S)
    second = follower()
    assert any("epoch 1" in line for line in second.stdout)  # the log from its beginning
    server.status(name, **failed(USER_ERROR))
    assert second.wait(LIMIT_S) == USER_ERROR
    assert posts(server) == len(server.jobs) == 1


def test_a_result_is_reported_as_often_as_requested(server: KubernetesServer) -> None:
    first = Run(server)
    server.status(server.wait_for_job(), **failed(USER_ERROR))
    assert (first.ended(), Run(server).ended()) == (USER_ERROR, USER_ERROR)
    assert posts(server) == 1


def test_sigterm_deletes_the_job(server: KubernetesServer, follower: Callable) -> None:
    process = follower()
    server.status(server.wait_for_job(), **RUNNING)
    assert any("running" in line for line in process.stdout)
    process.send_signal(signal.SIGTERM)
    assert process.wait(LIMIT_S) == CANCELLED
    assert server.jobs == {}
