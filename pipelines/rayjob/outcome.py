"""How a RayJob ended, read from its status: an exit code and one line."""

import re
from dataclasses import dataclass

from pipelines.exit_codes import DONE, FAULT, TRY_AGAIN, USER_ERROR
from pipelines.rayjob.resource import Status

KILLED = {-15, -9, 128 + 15, 128 + 9}  # SIGTERM, SIGKILL: as Python and as a shell report them

# KubeRay's reasons for a failure other than the command's own.
REASONS = {
    "SubmissionFailed": (TRY_AGAIN, "the command could not be submitted to Ray"),
    "PreRunningDeadlineExceeded": (TRY_AGAIN, "its pods did not start in time"),
    "JobStatusCheckTimeoutExceeded": (TRY_AGAIN, "its head could no longer be reached"),
    "JobDeploymentStatusTransitionGracePeriodExceeded": (TRY_AGAIN, "its head was lost"),
    "DeadlineExceeded": (FAULT, "it exceeded its deadline"),
    "ValidationFailed": (FAULT, "KubeRay rejected it"),
}
ENDED = {"Complete", "Failed", "ValidationFailed"}  # final values of jobDeploymentStatus


@dataclass(frozen=True)
class Outcome:
    code: int
    """0 done, 1 a fault, 2 something the user can fix, 3 worth retrying."""

    line: str
    """Why, for people."""


def outcome(status: Status) -> Outcome | None:
    """The outcome, or None while the job has not ended.

    KubeRay passes on Ray's message, which names the exit code of the command (ray/dashboard/modules/job).
    """
    deployment, ray = status.get("jobDeploymentStatus", ""), status.get("jobStatus", "")
    if deployment not in ENDED:
        return None
    if deployment == "Complete" and ray == "SUCCEEDED":
        return Outcome(DONE, "done")
    if ray == "STOPPED":
        return Outcome(FAULT, "it was stopped by someone else")
    message = status.get("message", "")
    exited = re.search(r"failed with exit code (-?\d+)", message)
    if exited:
        return _of_exit_code(int(exited[1]))
    code, why = REASONS.get(status.get("reason") or deployment, (FAULT, "it failed"))
    lines = message.strip().splitlines()
    return Outcome(code, f"{why}: {lines[-1]}" if lines else why)


def _of_exit_code(code: int) -> Outcome:
    if code in KILLED:
        return Outcome(TRY_AGAIN, f"its command was killed (exit code {code})")
    known = code if code in (USER_ERROR, TRY_AGAIN) else FAULT
    return Outcome(known, f"its command ended with exit code {code}")
