"""Run one command as a RayJob: create it or find it again, follow it to its end, delete it when cancelled.

Exit codes are those of `pipelines.exit_codes`; a job that ends with TRY_AGAIN is retried here. The job's name follows
from run, step and attempt, so a process that restarts the same step of the same run continues to follow the same job.
"""

import datetime
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from kubernetes.client import ApiException

from components.monitoring import metrics
from pipelines.exit_codes import FAULT, TRY_AGAIN
from pipelines.rayjob.api import RayJobsApi
from pipelines.rayjob.log import LogForwarder
from pipelines.rayjob.manifest import ATTEMPT_LABEL, RUN_LABEL, RayJob, identity, manifest
from pipelines.rayjob.outcome import Outcome, outcome
from pipelines.rayjob.resource import RayJobResource, Status
from yolo_core.errors import TryAgain

QUEUED = ("", "Suspended", "Waiting")  # values of jobDeploymentStatus without pods
CANCELLED = 128 + signal.SIGTERM
Report = Callable[[str], None]


def print_now(line: str) -> None:
    print(line, flush=True)  # the output of a pod is buffered otherwise


@dataclass(frozen=True)
class RunnerSettings:
    """Times in seconds."""

    poll: float = 5
    """Longest pause between two looks at the job and its log."""

    heartbeat: float = 60
    """Pause between two lines while the state stays the same."""

    delete_timeout: float = 15
    """Seconds for deleting a cancelled job; less than the grace period of this pod."""

    backoff: float = 30
    """Seconds before the second attempt; doubled before each further one."""

    attempts: int = 3
    """Maximum attempts of the command."""

    overrun: float = 600
    """Seconds beyond the job's own deadlines after which we stop relying on KubeRay to enforce them."""


def run(
    job: RayJob, api: RayJobsApi, *, settings: RunnerSettings = RunnerSettings(), report: Report = print_now
) -> int:
    """Run `job` (its attempt is ignored) to its end and return the exit code; 143 when cancelled.

    Raises TryAgain when Kubernetes stays unreachable, UserError when it refuses access. The job then keeps running and
    the next process that runs it follows it.
    """
    with _signals_set(api.cancelled), ExitStack() as stack:
        existing = api.find(identity(job.run, job.step))
        attempt = replace(job, attempt=max(map(_attempt_number, existing), default=1))
        stack.callback(metrics.job_ended, job.step)
        while True:
            ended = _Attempt(attempt, api, settings, report).follow()
            if ended is None:
                return CANCELLED
            report(f"{attempt.name}: {ended.line}")
            if ended.code != TRY_AGAIN or attempt.attempt >= settings.attempts:
                return ended.code
            if api.cancelled.wait(settings.backoff * 2 ** (attempt.attempt - 1)):
                return CANCELLED
            attempt = replace(attempt, attempt=attempt.attempt + 1)


def delete_all(run_id: str, api: RayJobsApi, *, retry_for: float = 60) -> list[str]:
    """Delete every RayJob of a pipeline run and return their names."""
    own = identity(run_id, step="")
    names = [found["metadata"]["name"] for found in api.find({RUN_LABEL: own[RUN_LABEL]})]
    for name in names:
        api.delete(name, retry_for)
    return names


class _Attempt:
    """One attempt: its RayJob from creation to the end."""

    def __init__(self, job: RayJob, api: RayJobsApi, settings: RunnerSettings, report: Report) -> None:
        self.job, self.api, self.settings, self.report = job, api, settings, report
        self.log = LogForwarder(api, job.name, report)
        self.started_at = self.phase_started_at = time.monotonic()
        self.reported_at = -float("inf")
        self.state = ""
        self.exists = False
        self.is_waiting = True
        self.was_admitted = False
        self.queued_since: datetime.datetime | None = None

    def follow(self) -> Outcome | None:
        """The outcome; None when we were cancelled and the job is deleted."""
        while not self.api.cancelled.is_set():
            try:
                if ended := self._step():
                    return ended
            except (TryAgain, ApiException) as error:
                if self.api.cancelled.is_set():  # nothing is retried after a cancellation, so any failure ends here
                    break
                if isinstance(error, TryAgain):
                    raise
                return Outcome(FAULT, f"Kubernetes: {error.status} {error.reason}: {error.body}")
        self.report(f"{self.job.name}: cancelled; deleting it")
        self.api.delete(self.job.name, self.settings.delete_timeout)
        return None

    def _step(self) -> Outcome | None:
        """Look at the job once: create it if it is missing, else report what is new and wait for the next change."""
        found = self.api.get(self.job.name)
        is_being_deleted = found is not None and "deletionTimestamp" in found["metadata"]
        if self.exists and (found is None or is_being_deleted):
            return Outcome(FAULT, "it was deleted by someone else")
        if found is None:
            self.api.create(manifest(self.job))
            self.exists = True
            self.queued_since = _now()
            return None
        if is_being_deleted:  # by an earlier cancellation; the name is free soon
            self._report_state("is being deleted")
            self.api.cancelled.wait(min(self.settings.poll, 1))
            return None
        self.exists = True
        return self._observe(found)

    def _observe(self, found: RayJobResource) -> Outcome | None:
        status: Status = found.get("status", {})
        self._report_state(_summary(status))
        self._measure_queue(found, status)
        ended = outcome(status) or self._overdue(status)
        self.log.forward()
        if not ended:
            self.api.wait_for_change(self.job.name, found["metadata"]["resourceVersion"], self.settings.poll)
        return ended

    def _report_state(self, state: str) -> None:
        """One line when the state changes, and a heartbeat while it does not."""
        now = time.monotonic()
        if state != self.state or now - self.reported_at >= self.settings.heartbeat:
            waited = datetime.timedelta(seconds=round(now - self.started_at))
            self.report(f"{self.job.name}: {state}" + (f" ({waited})" if state == self.state else ""))
            self.state, self.reported_at = state, now

    def _measure_queue(self, found: RayJobResource, status: Status) -> None:
        """Record the time in the queue on admission: since creation, or since Kueue suspended the job again."""
        if status.get("jobDeploymentStatus", "") not in QUEUED:
            if self.queued_since:
                metrics.job_admitted(self.job.step, (_now() - self.queued_since).total_seconds())
            self.queued_since = None
        elif self.queued_since is None:
            created = datetime.datetime.fromisoformat(found["metadata"]["creationTimestamp"])
            self.queued_since = _now() if self.was_admitted else min(created, _now())
        self.was_admitted |= self.queued_since is None

    def _overdue(self, status: Status) -> Outcome | None:
        """The end of our own waiting, where KubeRay did not enforce the job's deadline; deletes the job."""
        waiting = status.get("jobDeploymentStatus", "") in (*QUEUED, "Initializing")
        if waiting != self.is_waiting:
            self.is_waiting, self.phase_started_at = waiting, time.monotonic()
        limit = self.job.start_within if waiting else self.job.deadline
        if time.monotonic() - self.phase_started_at < limit + self.settings.overrun:
            return None
        self.api.delete(self.job.name, self.settings.delete_timeout)
        if waiting:
            return Outcome(TRY_AGAIN, f"it did not start within {limit} s")
        return Outcome(FAULT, f"it did not end within {limit} s")


def _summary(status: Status) -> str:
    """The state in a few words."""
    parts = [status.get("jobDeploymentStatus") or "waiting for KubeRay"]
    if ray := status.get("jobStatus"):
        parts.append(f"job {ray.lower()}")
    cluster = status.get("rayClusterStatus", {})
    if desired := cluster.get("desiredWorkerReplicas"):
        parts.append(f"{cluster.get('readyWorkerReplicas', 0)} of {desired} GPU nodes")
    return ", ".join(parts)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _attempt_number(found: RayJobResource) -> int:
    return int(found["metadata"]["labels"][ATTEMPT_LABEL])


@contextmanager
def _signals_set(cancelled: threading.Event) -> Iterator[None]:
    """While the block runs, SIGTERM and SIGINT set the event; outside the main thread this does nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda *_: cancelled.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
