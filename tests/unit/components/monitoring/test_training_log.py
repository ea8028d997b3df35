"""The lines of a training: in text for people, as JSON for machines, once per epoch whichever worker it comes from."""

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from components.monitoring.training_log import on_stdout
from components.training.driver import DriverActor
from components.training.job import OpenRun
from yolo_core.train import EpochReport, EpochRow


def row(epoch: int, ap: float | None = None, ap50: float | None = None) -> EpochRow:
    return EpochRow(epoch=epoch, step=10 * epoch, lr=0.01, box=0.05123, obj=1.5, cls=0.25, loss=1.8, AP=ap, AP50=ap50)


def report(now: EpochRow, before: EpochRow | None = None) -> EpochReport:
    """Of a training of 100 epochs whose best is the eighth; 2 GiB of memory, and 3723.4 s = 1 h 2 min 3 s left."""
    return EpochReport(
        row=now,
        epochs=100,
        steps=1000,
        best={"epoch": 8, "fitness": 0.33, "AP": 0.31, "AP50": 0.51} if before else None,
        before=before,
        images_per_second=143.21 if before else None,
        seconds_left=3723.4 if before else None,
        memory_bytes=2 << 30,
    )


def told(form: str, *reports: EpochReport, capsys: pytest.CaptureFixture[str]) -> list[str]:
    log = on_stdout("json" if form == "json" else "text", "yolov4-tiny")
    for each in reports:
        log.epoch(each)
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


def test_a_line_has_losses_ap_with_its_change_the_best_speed_memory_and_time_left(capsys: pytest.CaptureFixture):
    # AP .3 - .31 = -.01, AP50 .5 - .4504 = .0496
    later = report(row(12, 0.3, 0.5), before=row(8, 0.31, 0.4504))
    first, second = told("text", report(row(1)), later, capsys=capsys)
    assert first == (
        "yolov4-tiny   1/100  box 0.0512  obj 1.5000  cls 0.2500  AP   -             AP50   -             2.0 GiB"
    )
    assert second == (
        "yolov4-tiny  12/100  box 0.0512  obj 1.5000  cls 0.2500  AP 0.300 (-0.010)  AP50 0.500 (+0.050)  "
        "best 0.310 in 8  143 img/s  2.0 GiB  1:02:03 left"
    )


def test_a_json_line_has_the_same_unrounded(capsys: pytest.CaptureFixture):
    before = row(8, 0.25, 0.5)
    line = json.loads(told("json", report(row(12, 0.5, 0.75), before), capsys=capsys)[0])
    assert line == {
        "event": "epoch",
        "model": "yolov4-tiny",
        **row(12, 0.5, 0.75),
        "epochs": 100,
        "steps": 1000,
        "AP_change": 0.25,
        "AP50_change": 0.25,
        "best": {"epoch": 8, "fitness": 0.33, "AP": 0.31, "AP50": 0.51},
        "images_per_second": 143.21,
        "memory_bytes": 2 << 30,
        "seconds_left": 3723.4,
    }


def test_hints_follow_their_epoch(capsys: pytest.CaptureFixture):
    hinting = replace(report(row(1)), hints=("the loss stands",))
    assert told("text", hinting, capsys=capsys)[1:] == ["yolov4-tiny: hint: the loss stands"]
    lines = [json.loads(line) for line in told("json", hinting, capsys=capsys)]
    assert lines[1:] == [{"event": "hint", "model": "yolov4-tiny", "message": "the loss stands"}]


def test_an_epoch_that_restarted_workers_repeat_is_told_once(tmp_path: Path):
    open_run: OpenRun = nullcontext  # pyright: ignore[reportAssignmentType]
    driver = DriverActor(tmp_path, open_run)
    for epoch in (1, 2, 2, 3):
        driver.report(report(row(epoch)))
    assert [each.row["epoch"] for each in driver.take_reports()] == [1, 2, 3]
    driver.report(report(row(3)))
    assert driver.take_reports() == []
