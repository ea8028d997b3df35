"""`scaled-yolov4 pipeline compile`, and what the commands import."""

from pathlib import Path

import yaml
from imports import TYPER, run_command
from typer.testing import CliRunner

from pipelines.cli import stages


def test_compile_takes_the_choices_of_the_target(tmp_path: Path) -> None:
    out = tmp_path / "mine.yaml"
    given = ["pipeline", "compile", "--out", str(out), "--image", "registry/name:1", "--ray-jobs", "--queue", "gpus"]
    given += ["--gpus", "1", "--node-selector", "pool=a100"]
    assert CliRunner().invoke(stages, given).exit_code == 0
    spec = next(yaml.safe_load_all(out.read_text()))
    [loop] = [part for name, part in spec["components"].items() if name.startswith("comp-for-loop")]
    train = loop["dag"]["tasks"]["train"]["inputs"]["parameters"]
    assert train["node_selector"]["runtimeValue"]["constant"] == {"pool": "a100"}
    assert train["image"]["runtimeValue"]["constant"] == "registry/name:1"
    assert train["queue"]["runtimeValue"]["constant"] == "gpus"
    assert CliRunner().invoke(stages, [*given, "--check"]).exit_code == 0
    assert CliRunner().invoke(stages, ["pipeline", "compile", "--check", "--out", str(out)]).exit_code == 1


def test_the_command_is_mounted_and_loads_nothing_heavy() -> None:
    said, imported = run_command("pipelines.cli", "stages", "pipeline", "--help")
    for name in ("compile", "submit", "schedule", "status", "cancel"):
        assert f"  {name} " in said
    assert imported <= {*TYPER, "pydantic", "pydantic_core", "typing_inspection", "annotated_types"}
