"""The clock, on calls of known length."""

import time

import pytest

from yolo_core.deploy.latency import percentiles, time_parts


def test_parts_are_timed_apart_and_together():
    seen = []

    def first(run):
        seen.append(run)
        time.sleep(0.004)
        return run * 10

    def second(value):
        seen.append(value)
        time.sleep(0.008)

    spans = time_parts({"first": first, "second": second}, warmup=2, runs=3)
    assert seen == [0, 0, 1, 10, 2, 20, 3, 30, 4, 40], "two runs to warm up, each call takes what the last returned"
    assert {name: len(times) for name, times in spans.items()} == {"first": 3, "second": 3, "total": 3}
    assert (spans["first"] >= 4).all()
    assert (spans["second"] >= 8).all()
    assert spans["total"] == pytest.approx(spans["first"] + spans["second"])


def test_percentiles():
    # 0 to 100 in steps of 1: the p-th percentile is p.
    assert percentiles(range(101)) == {"p50": 50.0, "p90": 90.0, "p99": 99.0}
