"""The checks of the machine: what passes, what fails, and that each failure names its fix."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from components.doctor import machine as doctor
from components.doctor.checks import run
from components.parameter_file import load
from components.stages import prepare
from yolo_core.models import build_model
from yolo_core.models.weights import save_detector

ROOT = Path(__file__).parents[4]


def test_valid_parameters_pass():
    assert doctor.check_params(ROOT / "params.yaml").ok


def test_an_unknown_model_is_found(tmp_path: Path):
    wrong = tmp_path / "params.yaml"
    wrong.write_text((ROOT / "params.yaml").read_text().replace("models: [yolov4-tiny]", "models: [yolov4-tinny]"))
    finding = doctor.check_params(wrong)
    assert not finding.ok
    assert "yolov4-tinny" in finding.message


def test_a_missing_folder_is_found_before_prepare(tmp_path: Path):
    params = load(ROOT / "params.yaml", ["prepare.source=auto", f"prepare.location={tmp_path}/none"])
    finding = doctor.check_data(params)
    assert not finding.ok
    assert f"{tmp_path}/none: no such folder" in finding.message
    assert doctor.check_data(load(ROOT / "params.yaml")).ok


def test_weights_are_looked_at_and_addresses_left_to_the_training(tmp_path: Path):
    def checked(weights: str) -> doctor.Finding:
        return doctor.check_weights(load(ROOT / "params.yaml", [f"train.weights={weights}"]))

    assert checked("null").ok
    assert checked("https://localhost/model.safetensors").ok
    missing = checked(f"{tmp_path}/none.safetensors")
    assert not missing.ok
    assert "no such file" in missing.message
    path = tmp_path / "start.safetensors"
    save_detector(path, build_model("yolov4-tiny", 2, width=0.125), classes=["cat", "dog"], size=64)
    assert checked(str(path)).message == f"yolov4-tiny from {path} of 2 classes"


def test_the_time_of_the_training_is_measured_once_there_are_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    changes = ["prepare.digits.train_images=4", "prepare.digits.val_images=2", "prepare.digits.image_size=64"]
    params = load(ROOT / "params.yaml", [*changes, "train.size=64", "train.width=0.25", "train.batch=2"])
    assert doctor.check_time(params).message == "measured here once `prepare` has run"
    prepare.run(params, out=tmp_path / "data/prepared")
    finding = doctor.check_time(params)
    assert finding.ok
    assert re.fullmatch(r"yolov4-tiny about \d+ (min|h) \(11 epochs at [0-9.]+ images/s\)", finding.message)


def test_space_is_compared_with_what_is_needed(tmp_path: Path):
    assert doctor.check_space(tmp_path, 1e-6, "fix").ok
    finding = doctor.check_space(tmp_path, 1e9, "free some")
    assert not finding.ok
    assert "free some" in finding.fix
    assert not doctor.check_space(tmp_path / "none", 1e-6, "fix").ok


def test_a_store_that_cannot_be_written_is_found(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # the discard port: nothing listens
    finding = doctor.check_mlflow()
    assert not finding.ok
    assert "MLFLOW_TRACKING_URI" in finding.fix


def test_a_missing_package_names_its_extra():
    finding = doctor.check_package("no-such-package", "export")
    assert not finding.ok
    assert "scaled-yolov4[export]" in finding.fix
    assert doctor.check_package("torch", "train").ok


def test_a_missing_remote_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    finding = doctor.check_dvc_remote()
    assert not finding.ok
    assert "dvc remote add" in finding.fix


def test_every_check_is_one_line(
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    mlflow_database: Callable[[Path], str],
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_database(tmp_path))
    monkeypatch.chdir(ROOT)
    checks = list(doctor.of_machine(ROOT / "params.yaml"))
    run(checks)
    lines = capsys.readouterr().out.splitlines()
    assert [line[5:].split(":")[0] for line in lines] == [name for name, _ in checks]
    assert all(line.startswith(("ok   ", "FAIL ")) for line in lines)
