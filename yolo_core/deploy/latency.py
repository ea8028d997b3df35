"""Timing the parts of a pipeline, separately and in total."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
import torch


def time_parts(
    parts: Mapping[str, Callable[[Any], object]], *, warmup: int, runs: int, device: torch.device | str = "cpu"
) -> dict[str, np.ndarray]:
    """Time a chain of calls, each taking what the one before returned; the first takes the run number.

    warmup: untimed runs. On CUDA the device is synchronised before each reading of the clock.
    Returns milliseconds (runs,) per part, and their sum under "total".
    """
    wait = torch.cuda.synchronize if torch.device(device).type == "cuda" else lambda: None
    readings = np.empty((runs, len(parts) + 1))
    for run in range(-warmup, runs):
        value: object = run + warmup
        marks = [_now(wait)]
        for part in parts.values():
            value = part(value)
            marks.append(_now(wait))
        if run >= 0:
            readings[run] = marks
    spans = np.diff(readings, axis=1) * 1000
    return {**dict(zip(parts, spans.T, strict=True)), "total": spans.sum(1)}


class Percentiles(TypedDict):
    """Percentiles of durations, in ms."""

    p50: float
    """Median, ms."""

    p90: float
    """90 % are at most this long."""

    p99: float
    """99 % are at most this long."""


def percentiles(milliseconds: Sequence[float] | np.ndarray) -> Percentiles:
    """p50, p90 and p99 in ms, rounded to the microsecond."""
    p50, p90, p99 = (round(float(value), 3) for value in np.percentile(milliseconds, (50, 90, 99)))
    return {"p50": p50, "p90": p90, "p99": p99}


def _now(wait: Callable[[], None]) -> float:
    wait()
    return time.perf_counter()
