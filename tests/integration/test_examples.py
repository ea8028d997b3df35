"""The examples run, and those in the documentation of the public API too."""

import doctest
import os
import runpy
import shutil
import sys
from pathlib import Path

import nbformat
import pytest
import small_detector
from nbclient import NotebookClient

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


def test_the_notebook_gives_an_exported_detector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Every cell, with one epoch of few images in place of its parameters."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    notebook = nbformat.read(ROOT / "examples/digits.ipynb", as_version=4)
    (parameters,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    parameters.source = "EPOCHS = 1\nTRAIN_IMAGES = 24"
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 4
    text = "".join(output.get("text", "") for output in outputs)
    assert "epoch 1/1: loss " in text
    assert "AP50" in text.splitlines()[-2]
    assert Detector.load(tmp_path / "digits.onnx").classes == tuple("0123456789")
