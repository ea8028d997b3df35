"""What the status of a RayJob means for whoever started it: an exit code and one line."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DONE, FAULT, USER_ERROR, TRY_AGAIN = 0, 1, 2, 3
KILLED = {-15, -9, 128 + 15, 128 + 9}  # SIGTERM, SIGKILL: as Python and as a shell tell of them

# KubeRay's reasons of a job that failed otherwise than by its command.
REASONS = {
    "SubmissionFailed": (TRY_AGAIN, "the command could not be handed over to Ray"),
    "PreRunningDeadlineExceeded": (TRY_AGAIN, "its pods did not start in time"),
    "JobStatusCheckTimeoutExceeded": (TRY_AGAIN, "its head could not be reached any more"),
    "JobDeploymentStatusTransitionGracePeriodExceeded": (TRY_AGAIN, "its head was lost"),
    "DeadlineExceeded": (FAULT, "it took longer than it may"),
    "ValidationFailed": (FAULT, "KubeRay refused it"),
}
ENDED = {"Complete", "Failed", "ValidationFailed"}  # of jobDeploymentStatus; the others go on to one of these


@dataclass(frozen=True)
class Outcome:
    """code: 0 done, 1 a fault, 2 something the user can mend, 3 worth trying again. line: why, for people."""

    code: int
    line: str


def outcome(status: Mapping[str, Any]) -> Outcome | None:
    """The outcome by `status` of a RayJob; None while it has not ended.

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
    said = message.strip().splitlines()
    return Outcome(code, f"{why}: {said[-1]}" if said else why)


def _of_exit_code(code: int) -> Outcome:
    if code in KILLED:
        return Outcome(TRY_AGAIN, f"its command was killed (exit code {code})")
    known = code if code in (USER_ERROR, TRY_AGAIN) else FAULT
    return Outcome(known, f"its command ended with exit code {code}")
