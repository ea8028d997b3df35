"""The closing table, from the files of the stages."""

import json
from pathlib import Path

import pytest

from components import parameter_file as parameters
from components.cli import summary

ROOT = Path(__file__).parents[4]


def test_shows_available_results_and_a_dash_for_the_rest(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    metrics = tmp_path / "outputs/evaluate/yolov4-tiny/metrics.json"
    metrics.parent.mkdir(parents=True)
    metrics.write_text(json.dumps({"plain": {"AP": 0.41234, "AP50": 0.75}, "tta": {"AP": None}}))
    summary.show(parameters.load(ROOT / "params.yaml"))
    rows = [line.rsplit(maxsplit=1) for line in capsys.readouterr().out.splitlines() if line.strip()]
    shown = {" ".join(row[0].split()): row[-1] for row in rows if len(row) == 2}
    assert (shown["AP"], shown["AP50"]) == ("0.412", "0.750")
    assert (shown["AP, TTA"], shown["champion version"]) == ("-", "-")


def test_shows_how_many_versions_the_decision_is_one_of(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    decision = tmp_path / "outputs/promote/yolov4-tiny.json"
    decision.parent.mkdir(parents=True)
    decision.write_text(json.dumps({"decision": "hold", "champion_after": 3, "ap": {"looks": 17}}))
    summary.show(parameters.load(ROOT / "params.yaml"))
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["decision", "hold"] in rows
    assert ["versions", "compared", "so", "far", "17"] in rows
