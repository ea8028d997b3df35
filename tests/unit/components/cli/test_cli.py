"""The command line as a user meets it: help, errors, exit codes."""

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from imports import TYPER, run_command
from typer.testing import CliRunner, Result
from waiting import LIMIT_S

from components.cli.main import app
from components.stage_table import default_paths

ROOT = Path(__file__).parents[4]
STAGES = ["prepare", "anchors", "evolve", "train", "evaluate", "export", "benchmark", "register", "promote", "compare"]
COMMANDS = [*STAGES, "predict", "models", "plan", "import-weights", "summary"]


def command(*arguments: str) -> Result:
    """A command in the test's process, in the working folder: importing torch takes seconds."""
    return CliRunner().invoke(app, arguments, prog_name="scaled-yolov4")


def process(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    """The same as a process."""
    program = [sys.executable, "-m", "components.cli", *arguments]
    return subprocess.run(program, capture_output=True, text=True, cwd=cwd, check=False, timeout=LIMIT_S)


@pytest.mark.parametrize("module", ["components.cli", "pipelines.cli"])
@pytest.mark.parametrize(("level", "code"), [("1", 0), ("2", 2)])
def test_docstrings_must_be_there(module: str, level: str, code: int):
    """Ray Tune reads its own: with PYTHONOPTIMIZE=2 it would fail with a traceback, well into a run."""
    env = {**os.environ, "PYTHONOPTIMIZE": level, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-B", "-m", module, "--help"], env=env, capture_output=True, text=True)
    assert done.returncode == code
    lines = done.stderr.splitlines()
    assert [line.startswith("error: PYTHONOPTIMIZE=2") for line in lines] == [True] * (code == 2)


def test_the_version_is_that_of_the_package():
    done = command("--version")
    assert done.exit_code == 0
    assert done.stdout == f"scaled-yolov4 {importlib.metadata.version('scaled-yolov4')}\n"


def test_a_shell_completes_commands():
    words = {"_SCALED_YOLOV4_COMPLETE": "complete_bash", "COMP_WORDS": "scaled-yolov4 pre", "COMP_CWORD": "1"}
    done = CliRunner().invoke(app, [], prog_name="scaled-yolov4", env=words)
    assert sorted(done.stdout.split()) == ["predict", "prepare"]


def test_help_lists_every_command_with_examples():
    text = process("--help").stdout
    assert all(f"  {name} " in text for name in COMMANDS)
    assert "Examples:" in text


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command_has_an_example(name: str):
    result = command(name, "--help")
    assert result.exit_code == 0
    assert f"scaled-yolov4 {name}" in result.stdout.split("Examples:")[1]


def test_help_loads_nothing_heavy():
    output, imported = run_command("components.cli.main", "app", "--help")
    assert "Examples:" in output
    assert imported <= TYPER


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["anchors", "--data", "nowhere"], ["nowhere", "prepare"]),
        (["train", "-S", "train.epochs=0"], ["train.epochs", "params.yaml"]),
        (["evaluate", "--judge", "me"], ["evaluate.judge", "me", "hotcoco", "pycocotools"]),
        (["train", "--params", "none.yaml"], ["none.yaml", "no such parameter file"]),
        (["train", "--model", "yolov4-tyni"], ["yolov4-tyni", "yolov4-tiny"]),
        (["promote", "--registered", "none.json"], ["none.json", "register"]),
    ],
)
def test_an_error_of_the_user_is_one_line_and_exit_code_2(
    arguments: list[str], words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    result = command(*arguments)
    assert result.exit_code == 2
    lines = [line for line in result.stderr.splitlines() if line]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    assert all(word in lines[0] for word in words), lines[0]


def test_an_error_is_the_same_in_a_process():
    result = process("anchors", "--data", "nowhere")
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("error: ")


def test_debug_shows_the_traceback():
    result = process("anchors", "--data", "nowhere", "--debug")
    assert result.returncode != 0
    assert "Traceback" in result.stderr


@pytest.mark.parametrize("name", STAGES)
def test_default_paths_are_those_of_dvc(name: str):
    stage = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"][name]
    declared = {re.sub(r"\$\{item\.model\}", "M", path) for path in _paths(stage)}
    for option, path in default_paths(name, "M").items():
        if option == "work":
            continue  # unfinished work is not an output
        covered = any(str(path) == at or at.startswith(f"{path}/") or str(path).startswith(f"{at}/") for at in declared)
        assert covered, f"{name} --{option} {path} is not in dvc.yaml"


def _paths(stage: dict) -> list[str]:
    items = [item for key in ("deps", "outs", "metrics", "plots") for item in stage.get(key, [])]
    return [next(iter(item)) if isinstance(item, dict) else item for item in items]
