"""The examples run, and those in the documentation of the public API too."""

import doctest
import runpy
import shutil
import sys
from pathlib import Path

import pytest
import small_detector

import yolo_core
from yolo_core import Detector
from yolo_core.inference import detector, result

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> small_detector.Project:
    return small_detector.write(tmp_path_factory.mktemp("project"))


@pytest.mark.parametrize("module", [yolo_core, detector, result], ids=lambda module: module.__name__)
def test_examples_in_docstrings(
    module, project: small_detector.Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    shutil.copy(project.weights, "model.safetensors")
    shutil.copy(project.data / "images/val/1.png", "photo.jpg")  # what it is says its content
    failed, tried = doctest.testmod(module)
    assert tried
    assert not failed


def test_a_plain_training_gives_a_detector(
    project: small_detector.Project,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    out = tmp_path / "mine.safetensors"
    options = ["--size", "64", "--width", "0.125", "--batch", "2", "--epochs", "2"]
    monkeypatch.setattr(sys, "argv", ["train_plain.py", str(project.data), str(out), *options])
    runpy.run_path(str(ROOT / "examples/train_plain.py"), run_name="__main__")
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("epoch 1/2: loss ")
    assert second.startswith("epoch 2/2: loss ")
    assert Detector.load(out, device="cpu").classes == ("one", "two")
