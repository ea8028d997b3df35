"""The output of a RayJob's command, forwarded while it runs."""

import time
from collections.abc import Callable

from kubernetes.client import ApiException
from urllib3.exceptions import HTTPError

from pipelines.rayjob.api import RayJobsApi
from yolo_core.errors import TryAgain

OVERLAP_SECONDS = 5  # read again on each request, so that no clock needs to be exact; duplicates are dropped


class LogForwarder:
    """Passes each line of the command's output on once. A log that is unavailable now is read later."""

    def __init__(self, api: RayJobsApi, job: str, report: Callable[[str], None]) -> None:
        self._api, self._job, self._report = api, job, report
        self._last_stamp: dict[str, str] = {}  # by pod: time of the last line passed on
        self._read_at: dict[str, float] = {}  # by pod: when that was, by this process's clock

    def forward(self) -> None:
        """Pass on what is new."""
        try:
            for pod in self._api.pods(self._job):
                self._forward_pod(pod)
        except (TryAgain, ApiException, HTTPError, OSError):
            return

    def _forward_pod(self, pod: str) -> None:
        now, before = time.monotonic(), self._last_stamp.get(pod, "")
        since = round(now - self._read_at[pod]) + OVERLAP_SECONDS if before else None
        for line in self._api.log(pod, since):
            stamp, _, text = line.rstrip("\n").partition(" ")
            key = _sortable(stamp)
            if key > before:
                self._report(text)
                self._last_stamp[pod] = max(key, self._last_stamp.get(pod, ""))
                self._read_at[pod] = now


def _sortable(stamp: str) -> str:
    """An RFC 3339 time in UTC with all nine digits, so that text order is time order."""
    seconds, _, fraction = stamp.rstrip("Z").partition(".")
    return f"{seconds}.{fraction:0<9}"
