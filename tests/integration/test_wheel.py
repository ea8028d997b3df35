"""The package as users install it: a wheel in an environment of its own, used from a folder without this repository."""

import hashlib
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
import yaml
from waiting import LIMIT_S

pytestmark = pytest.mark.full

ROOT = Path(__file__).parents[2]
MODEL = "yolov4-tiny"
FOR_USERS = ("yolo_core/__init__.py", "components/defaults.yaml", "pipelines/cli.py")


def build(folder: Path) -> Path:
    """The wheel, built as pip does it."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        folder,
        ".",
    ]
    env = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    subprocess.run(command, cwd=ROOT, env=env, check=True, timeout=LIMIT_S)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """The programs of an environment that has the wheel; it shares the installed packages of this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True, with_pip=False)
    (site,) = folder.glob("lib/python*/site-packages")
    own = [path for path in sys.path if path.endswith("site-packages")]
    (site / "packages.pth").write_text("\n".join(own))
    into = ["--no-deps", "--quiet", "--target", str(site), str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", "install", *into], check=True, timeout=LIMIT_S)
    program = folder / "bin/scaled-yolov4"
    program.write_text(f"#!{folder}/bin/python\nfrom pipelines.cli import main\nmain()\n")
    program.chmod(0o755)
    return folder / "bin"


def run(programs: Path, folder: Path, *command: str) -> str:
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MLFLOW_TRACKING_URI")}
    env |= {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "DVC_SITE_CACHE_DIR": str(folder / ".site")}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=LIMIT_S)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_two_builds_are_one_file(wheel: Path, tmp_path: Path) -> None:
    one, other = (hashlib.sha256(path.read_bytes()).hexdigest() for path in (wheel, build(tmp_path)))
    assert one == other


def test_it_holds_what_users_need_and_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert set(FOR_USERS) <= set(names)
    assert {name.partition("/")[0] for name in names if not name.startswith("scaled_yolov4-")} == {
        "components",
        "pipelines",
        "yolo_core",
    }


def test_the_programs_come_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    where = "import components, yolo_core; print(components.__file__, yolo_core.__file__)"
    paths = run(installed, tmp_path, f"{installed}/python", "-c", where).split()
    assert all(Path(path).is_relative_to(installed.parent) for path in paths)


def test_from_photographs_to_predictions(installed: Path, tmp_path: Path) -> None:
    """`init`, the training by DVC, `predict`; a second `dvc repro` has nothing to do."""
    digits = {"train_images": 30, "val_images": 10, "image_size": 64}
    changes = ["source=digits", *(f"digits.{key}={value}" for key, value in digits.items())]
    made = [f"-Sprepare.{change}" for change in changes]
    run(installed, tmp_path, "scaled-yolov4", "prepare", *made, "--out", "digits")
    project = tmp_path / "birds"
    project.mkdir()
    run(installed, project, "scaled-yolov4", "init", "../digits", "--yes", "--hours", "0.01")
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["train"] |= {"epochs": 1, "size": 64, "width": 0.25}
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    dvc = (f"{installed}/python", "-m", "dvc", "repro", f"train@{MODEL}")
    run(installed, project, *dvc)
    assert (project / f"outputs/train/{MODEL}/model.safetensors").exists()
    assert "Running stage 'train" not in run(installed, project, *dvc)
    image = next((tmp_path / "digits/images/val").iterdir())
    run(installed, project, "scaled-yolov4", "predict", str(image))
    assert (project / "outputs/predict/detections.jsonl").read_text().count("\n") == 1
