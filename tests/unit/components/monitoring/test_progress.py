"""Plain progress lines, as they appear when the output is piped."""

import pytest

from components.monitoring import progress


def test_items_pass_unchanged_and_lines_tell_rate_and_time_left(capsys: pytest.CaptureFixture, monkeypatch):
    # 5 s an item and a line each 10 s: after item 2 (10 s, 0.2/s) 2 are left = 10 s
    clock = iter(range(0, 1000, 5))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    track = progress.on_stderr()
    assert list(track("abcd", "work")) == list("abcd")
    assert capsys.readouterr().err.splitlines() == ["work: 2/4, 0.2/s, 10 s left", "work: 4/4, 0.2/s, 0 s left"]


def test_without_a_total_the_line_counts(capsys: pytest.CaptureFixture, monkeypatch):
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    list(progress.on_stderr()(iter("ab"), "work"))
    assert capsys.readouterr().err.splitlines() == ["work: 1, 0.1/s", "work: 2, 0.1/s"]
