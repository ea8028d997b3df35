"""The whole job at its smallest, twice at once: by `dvc repro` in a fresh copy, and by KFP's local runner.

The tests share one copy of the project and leave it complete.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_project import MODEL, ROOT, write_params

pytestmark = pytest.mark.full

COPIED = ["dvc.yaml", ".dvc/config", ".dvc/.gitignore", ".dvcignore", ".gitignore", "components", "yolo_core"]
PER_MODEL = ("train", "evaluate", "export", "benchmark", "register", "promote")
STAGES = ["prepare", "anchors", "evolve", *(f"{stage}@{MODEL}" for stage in PER_MODEL), "compare"]
UP_TO_DATE = "Data and pipelines are up to date."


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """One thread for equal arithmetic, the stores of the working folder, and nobody's own git settings."""
    unset = ("MLFLOW_TRACKING_URI", "RAY_ADDRESS", "SCALED_YOLOV4_PIPELINE_ID")
    return {
        **{name: value for name, value in os.environ.items() if name not in unset},
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "DVC_SITE_CACHE_DIR": str(tmp_path_factory.mktemp("site")),
        "GIT_CONFIG_GLOBAL": os.devnull,
        **{f"GIT_{who}_{what}": "test@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }


@dataclass(frozen=True)
class Project:
    """A copy of the project under git and DVC."""

    folder: Path
    environment: dict[str, str]

    def run(self, *command: str) -> str:
        done = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def repro(self) -> str:
        return self.run("dvc", "repro")

    def commit(self) -> None:
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--allow-empty", "--message", "state")


def acted(log: str) -> list[str]:
    """The stages that ran, or whose results were taken from DVC's cache of runs."""
    lines = [line.strip() for line in log.splitlines()]
    done = [line for line in lines if line.startswith("Running stage") or "is cached - skipping run" in line]
    return [line.split("'")[1] for line in done]


def digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def tree(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): digest(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


@dataclass(frozen=True)
class Runs:
    """Both runs of the pipeline, done."""

    dvc: Project
    repro_log: str
    kfp: Path  # the artifacts of the KFP run

    def step(self, name: str) -> Path:
        """The folder of one KFP step's artifacts."""
        return next(path for pattern in (name, f"for-loop-*-iteration-0/{name}") for path in self.kfp.glob(pattern))


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str], mlflow_database: Callable[[Path], str]
) -> Runs:
    folder = tmp_path_factory.mktemp("project")
    for name in COPIED:
        (folder / name).parent.mkdir(exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    write_params(folder)
    project = Project(folder, environment)
    project.run("git", "init", "--quiet")
    project.commit()

    elsewhere = tmp_path_factory.mktemp("kfp")
    for working in (folder, elsewhere):
        mlflow_database(working)
    with (elsewhere / "log").open("w") as log:
        command = ["-m", "pipelines.graph.run_local", "--params", str(folder / "params.yaml"), "--root", "artifacts"]
        pipeline = subprocess.Popen(
            [sys.executable, *command], cwd=elsewhere, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            repro_log = project.repro()
            code = pipeline.wait(timeout=600)
        finally:
            pipeline.kill()
    assert code == 0, (elsewhere / "log").read_text()
    return Runs(project, repro_log, next((elsewhere / "artifacts").glob("scaled-yolov4-full-*")))


def test_repro_runs_every_stage_and_leaves_only_the_lock_to_commit(runs: Runs) -> None:
    assert sorted(acted(runs.repro_log)) == sorted(STAGES)
    assert runs.dvc.run("git", "status", "--porcelain").split() == ["??", "dvc.lock"]
    runs.dvc.commit()


def test_a_second_repro_does_nothing(runs: Runs) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    log = runs.dvc.repro()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert UP_TO_DATE in log
    assert acted(log) == []
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 6  # seconds of a core


def test_kfp_gives_the_same_data_anchors_and_hyperparameters(runs: Runs) -> None:
    made = runs.dvc.folder
    assert tree(runs.step("prepare") / "dataset") == tree(made / "data/prepared")
    assert tree(runs.step("anchors") / "anchors") == tree(made / "outputs/anchors")
    assert digest(runs.step("evolve") / "hyp/hyp.yaml") == digest(made / "outputs/evolve/hyp.yaml")


def test_kfp_gives_the_same_weights_and_figures(runs: Runs) -> None:
    made = runs.dvc.folder / "outputs"
    for name in ("model.safetensors", "curves.csv"):
        assert digest(runs.step("train") / "detector" / name) == digest(made / "train" / MODEL / name)
    for name in ("metrics.json", "detections.json", "detections_tta.json"):
        assert digest(runs.step("evaluate") / "evaluation" / name) == digest(made / "evaluate" / MODEL / name)
    for name in ("model.onnx", "model_nms.onnx"):
        assert digest(runs.step("export") / "exported" / name) == digest(made / "export" / MODEL / name)


def test_kfp_registers_and_promotes_the_same(runs: Runs) -> None:
    registered = read(runs.step("register") / "registered"), read(runs.dvc.folder / f"outputs/register/{MODEL}.json")
    for key in ("registered_model", "version", "weights_sha256", "validation_sha256"):
        assert registered[0][key] == registered[1][key]
    decided = read(runs.step("promote") / "decision"), read(runs.dvc.folder / f"outputs/promote/{MODEL}.json")
    assert decided[0]["decision"] == decided[1]["decision"] == "promote"


def test_kfp_steps_report_metrics_pages_and_models(runs: Runs) -> None:
    def artifact(step: str, name: str) -> dict[str, Any]:
        return read(runs.step(step) / "executor_output.json")["artifacts"][name]["artifacts"][0]

    figures = read(runs.dvc.folder / f"outputs/evaluate/{MODEL}/metrics.json")
    assert artifact("evaluate", "metrics")["metadata"]["plain.AP50"] == pytest.approx(figures["plain"]["AP50"])
    assert (runs.step("evaluate") / "report").read_text().count("<img src='data:image/") == 3
    confusion = artifact("evaluate", "confusion")
    matrix = read(runs.dvc.folder / f"outputs/evaluate/{MODEL}/confusion.json")["matrix"]
    assert [row["row"] for row in confusion["metadata"]["confusionMatrix"]["rows"]] == matrix
    assert artifact("train", "detector")["metadata"]["model"] == MODEL
    assert artifact("export", "exported")["metadata"]["framework"] == "onnx"


def test_kfp_stages_belong_to_one_pipeline_run(runs: Runs) -> None:
    parameters = read(runs.step("parameters") / "executor_output.json")["artifacts"]["params"]["artifacts"][0]
    given = parameters["metadata"]["SCALED_YOLOV4_PIPELINE_ID"]
    assert read(runs.step("register") / "registered")["pipeline"] == given


@pytest.mark.parametrize(
    ("deleted", "expected"),
    [
        (f"outputs/evaluate/{MODEL}/metrics.json", [f"evaluate@{MODEL}"]),
        (f"outputs/promote/{MODEL}.json", [f"promote@{MODEL}"]),
        ("outputs/compare/comparison.png", ["compare"]),
    ],
)
def test_a_deleted_output_comes_back_alone(runs: Runs, deleted: str, expected: list[str]) -> None:
    path = runs.dvc.folder / deleted
    before = digest(path)
    path.unlink()
    assert acted(runs.dvc.repro()) == expected
    assert digest(path) == before


@pytest.mark.slow
def test_every_output_comes_back_with_nothing_before_it(runs: Runs) -> None:
    lock = yaml.safe_load((runs.dvc.folder / "dvc.lock").read_text())["stages"]
    for stage, entry in lock.items():
        for out in entry["outs"]:
            path = runs.dvc.folder / out["path"]
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            ran = acted(runs.dvc.repro())
            assert stage in ran
            assert path.exists()
            assert STAGES.index(ran[0]) >= STAGES.index(stage), f"{out['path']}: {ran}"


def test_a_deleted_output_folder_stays_out_of_git(runs: Runs) -> None:
    shutil.rmtree(runs.dvc.folder / "outputs" / "evaluate")
    assert acted(runs.dvc.repro()) == [f"evaluate@{MODEL}"]
    assert runs.dvc.run("git", "status", "--porcelain") == ""


def test_push_and_pull_move_data_and_models(runs: Runs) -> None:
    folder = runs.dvc.folder
    before = {name: tree(folder / name) for name in ("data", "outputs")}
    runs.dvc.run("dvc", "push")
    for lost in ("data", "outputs", ".dvc/cache"):
        shutil.rmtree(folder / lost)
    runs.dvc.run("dvc", "pull")
    assert {name: tree(folder / name) for name in ("data", "outputs")} == before
    assert UP_TO_DATE in runs.dvc.repro()


def test_metrics_and_plots_show(runs: Runs) -> None:
    shown = json.loads(runs.dvc.run("dvc", "metrics", "show", "--json"))[""]["data"]
    figures = shown[f"outputs/evaluate/{MODEL}/metrics.json"]["data"]
    assert figures["plain"]["AP50"] == read(runs.dvc.folder / f"outputs/evaluate/{MODEL}/metrics.json")["plain"]["AP50"]
    runs.dvc.run("dvc", "plots", "show", "--out", "dvc_plots")
    page = (runs.dvc.folder / "dvc_plots/index.html").read_text()
    for expected in (f"Validation AP50, {MODEL}", "Training loss", "pr_curve.png", "confusion.png", "fitness.png"):
        assert expected in page
    assert runs.dvc.run("git", "status", "--porcelain") == ""


def test_an_experiment_runs_what_its_change_needs(runs: Runs) -> None:
    log = runs.dvc.run("dvc", "exp", "run", "--name", "stricter", "-S", "promote.confidence=0.9")
    assert acted(log) == [f"promote@{MODEL}", "compare"]
    shown = runs.dvc.run("dvc", "exp", "show", "--csv")
    assert "stricter" in shown
    assert "promote.confidence" in shown
