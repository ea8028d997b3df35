"""What is sent to Prometheus through a Pushgateway, and that nothing is sent without one."""

import logging
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from gateway import KeptPushes, fetched, pushgateway
from waiting import LIMIT_S, until

from components.monitoring import metrics
from components.monitoring.metrics import GATEWAY_VARIABLE, METRICS, PREFIX
from yolo_core.errors import Diverged, TryAgain, UserError
from yolo_core.train import Pace

STAGE = "/metrics/job/scaled_yolov4_stages/model/yolov4-tiny/stage/train"
TRAINING = "/metrics/job/scaled_yolov4_training/model/yolov4-tiny"


@pytest.fixture
def pushes(monkeypatch: pytest.MonkeyPatch) -> Iterator[KeptPushes]:
    monkeypatch.setattr(metrics, "TIMEOUT_S", LIMIT_S)
    with KeptPushes() as kept:
        monkeypatch.setenv(GATEWAY_VARIABLE, kept.url)
        yield kept


def test_a_stage_reports_its_start_and_its_end(pushes: KeptPushes) -> None:
    before, clock = time.time(), time.monotonic()
    with metrics.stage("train", "yolov4-tiny"):
        time.sleep(0.05)
    after, whole = time.time(), time.monotonic() - clock
    (how, where, start), (_, _, end) = pushes.pushes
    assert (how, where) == ("PUT", STAGE)
    assert start.keys() == {"scaled_yolov4_stage_started_timestamp_seconds"}
    assert end.keys() == {PREFIX + name for name in METRICS if name.startswith("stage_")}
    began = start["scaled_yolov4_stage_started_timestamp_seconds"]
    assert before <= began <= after
    assert 0.05 <= end["scaled_yolov4_stage_duration_seconds"] <= whole
    assert end["scaled_yolov4_stage_ended_timestamp_seconds"] > began
    assert end["scaled_yolov4_stage_exit_code"] == end["scaled_yolov4_stage_diverged"] == 0


@pytest.mark.parametrize(
    ("error", "code", "diverged"),
    [
        (UserError("a"), 2, 0),
        (TryAgain("b"), 3, 0),
        (Diverged("c"), 2, 1),
        (ValueError("d"), 1, 0),
        (KeyboardInterrupt(), 1, 0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_a_stage_that_fails_reports_how(pushes: KeptPushes, error: BaseException, code: int, diverged: int) -> None:
    with pytest.raises(type(error)), metrics.stage("train", "yolov4-tiny"):
        raise error
    end = pushes.pushes[-1][2]
    assert (end["scaled_yolov4_stage_exit_code"], end["scaled_yolov4_stage_diverged"]) == (code, diverged)


def test_a_stage_without_a_model_has_no_such_label(pushes: KeptPushes) -> None:
    with metrics.stage("prepare"):
        pass
    assert {where for _, where, _ in pushes.pushes} == {"/metrics/job/scaled_yolov4_stages/stage/prepare"}


def test_a_training_adds_up_its_work_and_leaves_nothing_behind(
    pushes: KeptPushes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "PERIOD_S", 0.05)
    before = time.time()
    with metrics.training("yolov4-tiny") as look:
        look(10, {"loss": 3.5}, Pace(images=40, seconds=2.0, waiting=0.5))
        look(20, {"loss": 3.0}, Pace(images=40, seconds=1.0, waiting=0.25))
        until(lambda: pushes.pushes and pushes.pushes[-1][2].get("scaled_yolov4_train_step") == 20, "a push of step 20")
        pushed = pushes.pushes[-1][2]
    assert before <= pushed.pop("scaled_yolov4_train_last_step_timestamp_seconds") <= time.time()
    assert pushed == {
        "scaled_yolov4_train_images_total": 80,
        "scaled_yolov4_train_step_seconds_total": 3.0,
        "scaled_yolov4_train_loader_wait_seconds_total": 0.75,
        "scaled_yolov4_train_step": 20,
        "scaled_yolov4_train_loss": 3.0,
    }
    assert {where for _, where, _ in pushes.pushes} == {TRAINING}
    assert pushes.pushes[-1][0] == "DELETE"


def test_an_unavailable_gateway_is_reported_once_and_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(GATEWAY_VARIABLE, "http://127.0.0.1:9")  # nothing listens there
    with caplog.at_level(logging.WARNING), metrics.stage("prepare"):
        done = True
    assert done
    assert len(caplog.records) == 1
    assert "SCALED_YOLOV4_PUSHGATEWAY = http://127.0.0.1:9: no metrics sent" in caplog.text


def test_without_a_gateway_nothing_is_even_imported() -> None:
    program = """
import sys
from components.monitoring import metrics
with metrics.stage("train", "yolov4-tiny"):
    pass
sys.exit(any(name in sys.modules for name in ("prometheus_client", "ray", "torch")))
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=LIMIT_S, check=False).returncode == 0


def test_a_pushgateway_accepts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pushgateway() as address:
        monkeypatch.setenv(GATEWAY_VARIABLE, address)
        with metrics.training("yolov4-tiny") as look:
            look(10, {"loss": 3.5}, Pace(40, 2.0, 0.5))
        with metrics.stage("train", "yolov4-tiny"):
            assert "scaled_yolov4_stage_exit_code" not in fetched(address)
        there = {name for name in fetched(address) if name.startswith(PREFIX)}
    assert there == {PREFIX + name for name in METRICS if name.startswith("stage_")}
