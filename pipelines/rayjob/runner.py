"""Run one command as a RayJob and end as it ends: created or found again, followed, deleted when we are cancelled.

Exit codes: 0 done, 1 a fault, 2 something the user can mend, 3 try again; a job that ends with 3 is tried again here.
The name follows from run, step and attempt: whoever starts the same step of the same run again, after losing this
process, goes on following the same job.
"""

import datetime
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from kubernetes.client import ApiException
from urllib3.exceptions import HTTPError

from components.monitoring import metrics
from pipelines.rayjob.api import RayJobsApi
from pipelines.rayjob.manifest import ATTEMPT_LABEL, RUN_LABEL, RayJob, identity, manifest
from pipelines.rayjob.outcome import FAULT, TRY_AGAIN, Outcome, outcome
from yolo_core.errors import TryAgain

QUEUED = ("", "Suspended", "Waiting")  # states of a job that has no pods yet
CANCELLED = 128 + signal.SIGTERM
Say = Callable[[str], None]


def say_at_once(line: str) -> None:
    print(line, flush=True)  # a pod's output is no terminal, and Python would keep lines back


@dataclass(frozen=True)
class Patience:
    """Seconds. window: between two looks at the job and its log at most. heartbeat: between two lines that say that we
    wait. cancel: to delete a job when we are cancelled; less than Kubernetes leaves a pod. backoff: before the second
    attempt, doubled before each further one. attempts: of the command in all. over: beyond the limits in the job,
    which KubeRay keeps, until we take it that KubeRay does not.
    """

    window: float = 5
    heartbeat: float = 60
    cancel: float = 15
    backoff: float = 30
    attempts: int = 3
    over: float = 600


def run(job: RayJob, api: RayJobsApi, *, patience: Patience = Patience(), say: Say = say_at_once) -> int:
    """Run `job` (its attempt aside) to its end and return the exit code; 143 when we were cancelled.

    Raises TryAgain when Kubernetes stays away, UserError when it refuses us. The job then stays for whoever comes next.
    """
    with _signals_set(api.cancelled), ExitStack() as stack:
        existing = api.find(identity(job.run, job.step))
        attempt = replace(job, attempt=max(map(_attempt, existing), default=1))
        stack.callback(metrics.job_ended, job.step)
        while True:
            ended = _Following(attempt, api, patience, say).to_the_end()
            if ended is None:
                return CANCELLED
            say(f"{attempt.name}: {ended.line}")
            if ended.code != TRY_AGAIN or attempt.attempt >= patience.attempts:
                return ended.code
            if api.cancelled.wait(patience.backoff * 2 ** (attempt.attempt - 1)):
                return CANCELLED
            attempt = replace(attempt, attempt=attempt.attempt + 1)


def delete_all(run_id: str, api: RayJobsApi, *, patience: float = 60) -> list[str]:
    """Delete every RayJob of a run and return their names: what the end of a pipeline cleans up."""
    own = identity(run_id, step="")
    names = [found["metadata"]["name"] for found in api.find({RUN_LABEL: own[RUN_LABEL]})]
    for name in names:
        api.delete(name, patience)
    return names


class _Following:
    """One attempt: its RayJob from creation to the end."""

    def __init__(self, job: RayJob, api: RayJobsApi, patience: Patience, say: Say) -> None:
        self.job, self.api, self.patience, self.say = job, api, patience, say
        self.log = _Log(api, job.name, say)
        self.began = self.phase_began = time.monotonic()
        self.spoke = -float("inf")
        self.state = ""
        self.is_there = False
        self.is_waiting = True
        self.was_admitted = False
        self.queued: datetime.datetime | None = None  # since when

    def to_the_end(self) -> Outcome | None:
        """The outcome; None when we were cancelled and the job is deleted."""
        while not self.api.cancelled.is_set():
            try:
                if ended := self._look():
                    return ended
            except (TryAgain, ApiException) as error:
                if self.api.cancelled.is_set():  # then nothing is tried again, and any failure ends here
                    break
                if isinstance(error, TryAgain):
                    raise
                return Outcome(FAULT, f"Kubernetes: {error.status} {error.reason}: {error.body}")
        self.say(f"{self.job.name}: cancelled; deleting it")
        self.api.delete(self.job.name, self.patience.cancel)
        return None

    def _look(self) -> Outcome | None:
        """One look at the job: make it, pass on what is new, and wait for the next change."""
        found = self.api.get(self.job.name)
        goes = found is not None and "deletionTimestamp" in found["metadata"]
        if self.is_there and (found is None or goes):
            return Outcome(FAULT, "it was deleted by someone else")
        if found is None:
            self.api.create(manifest(self.job))
            self.is_there = True
            self.queued = _now()
            return None
        if goes:  # since an earlier cancellation; its name is free soon
            self._tell("is being deleted")
            self.api.cancelled.wait(min(self.patience.window, 1))
            return None
        self.is_there = True
        status = found.get("status", {})
        self._tell(_summary(status))
        self._note_queue(found, status)
        ended = outcome(status) or self._overdue(status)
        self.log.forward()
        if not ended:
            self.api.wait_for_change(self.job.name, found["metadata"]["resourceVersion"], self.patience.window)
        return ended

    def _tell(self, state: str) -> None:
        """A line when the state is another, and a sign of life at times when it is not."""
        now = time.monotonic()
        if state != self.state or now - self.spoke >= self.patience.heartbeat:
            waited = datetime.timedelta(seconds=round(now - self.began))
            self.say(f"{self.job.name}: {state}" + (f" ({waited})" if state == self.state else ""))
            self.state, self.spoke = state, now

    def _note_queue(self, found: dict[str, Any], status: dict[str, Any]) -> None:
        """Tell how long the job was held back, once it is let start: since it was made, or since Kueue took it back."""
        if status.get("jobDeploymentStatus", "") not in QUEUED:
            if self.queued:
                metrics.job_admitted(self.job.step, (_now() - self.queued).total_seconds())
            self.queued = None
        elif self.queued is None:
            created = datetime.datetime.fromisoformat(found["metadata"]["creationTimestamp"])
            self.queued = _now() if self.was_admitted else min(created, _now())
        self.was_admitted |= self.queued is None

    def _overdue(self, status: dict[str, Any]) -> Outcome | None:
        """The end of our own waiting, where KubeRay did not end the job at its deadline; deletes it."""
        waiting = status.get("jobDeploymentStatus", "") in (*QUEUED, "Initializing")
        if waiting != self.is_waiting:
            self.is_waiting, self.phase_began = waiting, time.monotonic()
        limit = self.job.start_within if waiting else self.job.deadline
        if time.monotonic() - self.phase_began < limit + self.patience.over:
            return None
        self.api.delete(self.job.name, self.patience.cancel)
        if waiting:
            return Outcome(TRY_AGAIN, f"it did not start within {limit} s")
        return Outcome(FAULT, f"it did not end within {limit} s")


class _Log:
    """What the command prints, passed on line by line, each once; a log that cannot be had now is had later."""

    def __init__(self, api: RayJobsApi, job: str, say: Say) -> None:
        self.api, self.job, self.say = api, job, say
        self.last: dict[str, str] = {}  # per pod: time of the last line passed on
        self.read: dict[str, float] = {}  # and by our clock, when that was

    def forward(self) -> None:
        try:
            for pod in self.api.pods(self.job):
                self._forward(pod)
        except (TryAgain, ApiException, HTTPError, OSError):
            return

    def _forward(self, pod: str) -> None:
        now, before = time.monotonic(), self.last.get(pod, "")
        # Counted by our clock and with a margin, so that no clock need be right; what comes twice is dropped.
        since = round(now - self.read[pod]) + 5 if before else None
        for line in self.api.log(pod, since):
            stamp, _, text = line.rstrip("\n").partition(" ")
            key = _sortable(stamp)
            if key > before:
                self.say(text)
                self.last[pod] = max(key, self.last.get(pod, ""))
                self.read[pod] = now


def _sortable(stamp: str) -> str:
    """An RFC 3339 time in UTC with all nine digits, so that text order is time order."""
    seconds, _, fraction = stamp.rstrip("Z").partition(".")
    return f"{seconds}.{fraction:0<9}"


def _summary(status: dict[str, Any]) -> str:
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


def _attempt(found: dict[str, Any]) -> int:
    return int(found["metadata"]["labels"][ATTEMPT_LABEL])


@contextmanager
def _signals_set(cancelled: threading.Event) -> Iterator[None]:
    """While the block runs, SIGTERM and SIGINT set the event; in a thread that is not the main one they do not."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda *_: cancelled.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
