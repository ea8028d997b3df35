"""`init` in an empty folder and in a project, as a user meets it."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result
from yolo_folder import YoloFolder

from components import parameter_file
from components.cli.main import app
from components.project.machine import Speed
from components.workspace import PARAMS


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, the working folder; data in YOLO layout are beside it."""
    YoloFolder(tmp_path / "photos")
    shutil.rmtree(tmp_path / "photos/images/val")
    shutil.rmtree(tmp_path / "photos/labels/val")
    folder = tmp_path / "my birds"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A speed without a training."""
    monkeypatch.setattr("components.project.init.measure", lambda params, model, data: Speed(10.0, 1.0))


def init(*arguments: str, typed: str | None = None) -> Result:
    return CliRunner().invoke(app, ["init", *arguments], input=typed)


def test_a_project_in_an_empty_folder(project: Path) -> None:
    """With real steps of the training."""
    done = init("../photos", "--yes", "--hours", "0.01")
    assert done.exit_code == 0, done.output
    given = yaml.safe_load(PARAMS.read_text())
    assert (given["project"], given["models"]) == ("my-birds", ["yolov4-tiny"])
    assert given["prepare"] == {"location": "../photos", "val_fraction": 0.1}
    params = parameter_file.load(PARAMS)
    assert (params.experiment, params.registered_name("yolov4-tiny")) == ("my-birds", "my-birds-yolov4-tiny")
    stages = yaml.safe_load(Path("dvc.yaml").read_text())["stages"]
    assert stages["prepare"]["deps"] == ["../photos"]
    assert Path(".dvc/config").exists()
    assert "# my-birds" in Path("README.md").read_text()
    assert "trains" in done.output
    assert "fewer than 20 training boxes" in done.output


@pytest.mark.usefixtures("measured")
def test_a_project_that_is_here_is_changed_only_with_force(project: Path) -> None:
    assert init("../photos", "--yes").exit_code == 0
    Path("README.md").write_text("mine\n")
    before = {path: path.read_bytes() for path in (PARAMS, Path("dvc.yaml"), Path("README.md"))}
    again = init("../photos", "--yes")
    assert (again.exit_code, "nothing to change" in again.output) == (0, True)
    other = init("../photos", "robins", "--yes")
    assert other.exit_code == 2
    assert "+project: robins" in other.output
    assert "nothing was changed" in other.stderr
    assert {path: path.read_bytes() for path in before} == before
    assert init("../photos", "robins", "--yes", "--force").exit_code == 0
    assert yaml.safe_load(PARAMS.read_text())["project"] == "robins"
    assert Path("README.md").read_text() == "mine\n"


@pytest.mark.usefixtures("measured")
def test_several_folders_become_one_dataset(project: Path) -> None:
    YoloFolder(project.parent / "more")
    done = init("../photos", "--also", "../more", "--class", "dog=pet", "--class", "cat=", "--yes")
    assert done.exit_code == 0, done.output
    assert yaml.safe_load(PARAMS.read_text())["prepare"] == {
        "location": "../photos",
        "classes": {"cat": None, "dog": "pet"},
        "more": [{"location": "../more"}],
    }
    assert yaml.safe_load(Path("dvc.yaml").read_text())["stages"]["prepare"]["deps"] == ["../photos", "../more"]


@pytest.mark.parametrize("repository", [".", ".."])
@pytest.mark.usefixtures("measured")
def test_dvc_uses_the_git_repository_around_it(project: Path, repository: str) -> None:
    subprocess.run(["git", "init", "--quiet", repository], check=True)
    assert init("../photos", "--yes").exit_code == 0
    settings = Path(".dvc/config").read_text()
    assert "no_scm" not in settings
    assert "analytics = false" in settings
    shown = subprocess.run(["git", "status", "--short", "--", "."], capture_output=True, text=True, check=True).stdout
    assert "data/" not in shown
    assert "runs/" not in shown


@pytest.mark.usefixtures("measured")
def test_it_asks_where_somebody_can_answer(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = init("../photos")
    assert done.exit_code == 2
    assert "--yes" in done.stderr
    assert not PARAMS.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["../none"], "../none: no such folder"),
        ([".."], "outside of the data"),
        (["../photos", "a/b"], "project"),
        (["../photos", "--weights", "yolov7.pt"], "import-weights"),
        (["../photos", "--class", "cat"], "expected NAME=NEW"),
        (["../photos", "--class", "bird=x"], "no class 'bird' to rename"),
        (["../photos", "--weights", "none.safetensors"], "none.safetensors: no such file"),
    ],
)
@pytest.mark.usefixtures("measured")
def test_what_cannot_be_used_is_one_line(project: Path, arguments: list[str], words: str) -> None:
    done = init(*arguments, "--yes")
    assert done.exit_code == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert words in line
    assert not PARAMS.exists()
