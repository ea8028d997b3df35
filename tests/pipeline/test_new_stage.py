"""CONTRIBUTING.md says how to add a stage. Here its steps are followed literally, in a copy of the project."""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COPIED = ("components", "pipelines", "yolo_core", "docs/stages.md", "dvc.yaml", "params.yaml", ".dvcignore")
SMALL = ("train_images=8", "val_images=4", "image_size=64")

# The pipeline's own first step, `prepare` and the new one, by KFP's local runner.
RUN_BY_KFP = """
from pathlib import Path
from typing import Any
from kfp import dsl, local
from components.stage_table import get_stage
from pipelines.graph.own_components import parameters
from pipelines.graph.scaled_yolov4_full import stage_steps
from pipelines.graph.target import Target

@dsl.pipeline(name="two-stages")
def pipeline(text: str):
    given = dict(overrides=[], models=[], data_revision="", pipeline_id="one", mlflow_tracking_uri="", image="")
    params = parameters(params_yaml=text, **given).outputs["params"]
    artifacts: dict[str, Any] = {}
    add = stage_steps(Target(retries=0))
    for name in ("prepare", "count_boxes"):
        add(get_stage(name), artifacts, params=params)

local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root="artifacts")
pipeline(text=Path("params.yaml").read_text())
"""


def code_blocks() -> list[str]:
    """The code under "A new stage", without the indentation of its list."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    section = text.partition("\n## A new stage\n")[2].partition("\n## ")[0]
    return [textwrap.dedent(block) for block in re.findall(r"```(?:python|yaml)\n(.*?)\n *```", section, re.DOTALL)]


def insert(file: Path, text: str, before: str, indent: str = "") -> None:
    """Insert text into a file before the single occurrence of `before`."""
    content = file.read_text()
    assert content.count(before) == 1, before
    file.write_text(content.replace(before, f"{textwrap.indent(text, indent)}\n{before}"))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with the stage added as CONTRIBUTING.md says."""
    root = tmp_path_factory.mktemp("project")
    for name in COPIED:
        (root / name).parent.mkdir(exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, root / name)
    module, loader, row, section, field, values = code_blocks()
    (root / "components/stages/count_boxes.py").write_text(module + "\n")
    insert(root / "components/stage_table.py", f"{loader}\n\n", before="DATASET = Input(")
    insert(root / "components/stage_table.py", f"{row},", before=")\n_BY_NAME", indent="    ")
    insert(root / "components/params.py", f"{section}\n\n", before="class Params(Section):")
    insert(root / "components/params.py", f"{field}\n", before="    def train_settings(", indent="    ")
    with (root / "params.yaml").open("a") as file:
        file.write(f"\n{values}\n")
    run(root, sys.executable, "-m", "components.stage_files")
    run(root, "dvc", "init", "--no-scm", "--quiet")
    return root


def run(root: Path, *command: str) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PYTHONPATH": str(root), "PATH": path, "DVC_SITE_CACHE_DIR": str(root / ".site")}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_new_stage_is_a_command_a_line_in_the_docs_and_a_step_of_the_pipeline(project: Path) -> None:
    shown = run(project, sys.executable, "-m", "components.cli", "count-boxes", "--help")
    assert "Count the boxes of each class." in shown
    assert "scaled-yolov4 count-boxes --data data/mine" in shown
    assert "| `count-boxes` | Count the boxes of each class." in (project / "docs/stages.md").read_text()
    run(project, sys.executable, "-m", "pipelines.graph.compile", "--out", "compiled.yaml")
    assert "exec-count-boxes" in (project / "compiled.yaml").read_text()


@pytest.mark.slow
def test_dvc_and_kfp_run_the_new_stage_to_the_same_result(project: Path) -> None:
    text = (project / "params.yaml").read_text()
    for key, value in (one.split("=") for one in SMALL):
        text = re.sub(rf"^( +{key}:) \d+", rf"\1 {value}", text, flags=re.MULTILINE)
    (project / "params.yaml").write_text(text)
    log = run(project, "dvc", "repro", "count_boxes")
    assert "Running stage 'count_boxes'" in log
    counts = json.loads((project / "outputs/count_boxes.json").read_text())
    assert counts
    assert min(counts.values()) >= 1
    assert "Running stage" not in run(project, "dvc", "repro", "count_boxes")

    run(project, sys.executable, "-c", RUN_BY_KFP)
    [made] = (project / "artifacts").glob("two-stages-*/count-boxes/counts")
    assert json.loads(made.read_text()) == counts
    page = made.with_name("report").read_text()
    assert "<h1>Boxes</h1>" in page
