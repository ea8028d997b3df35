"""The whole graph under KFP's local runner: scratch to promoted models, unchanged data, changed data, a failure."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run
from stage_outputs import make_outputs
from waiting import LIMIT_S

from components import parameter_file as parameters
from components.lineage.record import IMAGE_VARIABLE
from components.stages import prepare, promote, register
from pipelines.graph.target import IMAGE

ROOT = Path(__file__).parents[2]
MODELS = ["yolov4-tiny", "yolov4-tiny-3l"]
TINY = [
    "prepare.digits={train_images: 24, val_images: 12, image_size: 96}",
    "anchors.kmeans_iterations=5",
    "anchors.generations=20",
    "evolve.trials=0",
    "train.size=64",
    "train.width=0.125",
    "train.epochs=1",
    "train.batch=8",
    "train.nominal_batch=8",
    "train.device=cpu",
    "train.hyp.warmup_epochs=0",
    "export.check_images=4",
    "export.openvino=[]",
    "benchmark={batches: [1], warmup: 0, runs: 2, threads: 1}",
    "promote.bootstrap_samples=100",
]


UNCHANGED = {"parameters", "check-source", "finish"}  # the steps of a run whose source is known to have nothing new
PREPARED = UNCHANGED | {"prepare", "retrain"}  # of one that has to read the data to know


@dataclass(frozen=True)
class Here:
    """A working folder with an MLflow database, in which the pipeline runs."""

    folder: Path
    models: list[str]
    changes: Sequence[str] = ()
    ray: str = ""  # address of a cluster

    @property
    def text(self) -> str:
        params = parameters.load(ROOT / "params.yaml", [*TINY, f"models=[{', '.join(self.models)}]", *self.changes])
        return yaml.safe_dump(params.model_dump(mode="json", by_alias=True, exclude_unset=True))

    def run(self, *arguments: str, code: int = 0) -> Path:
        """Run it as a user would; returns the folder of its artifacts."""
        (self.folder / "params.yaml").write_text(self.text)
        unset = ("MLFLOW_TRACKING_URI", "RAY_ADDRESS", "SCALED_YOLOV4_PIPELINE_ID")
        environment = {name: value for name, value in os.environ.items() if name not in unset}
        environment |= {"RAY_ADDRESS": self.ray} if self.ray else {}
        command = [sys.executable, "-m", "pipelines.graph.run_local", "--root", "artifacts", *arguments]
        options = {"cwd": self.folder, "env": environment, "capture_output": True, "text": True, "timeout": 2 * LIMIT_S}
        done = subprocess.run(command, **options)
        assert done.returncode == code, done.stdout + done.stderr
        return max((self.folder / "artifacts").iterdir(), key=lambda path: path.stat().st_mtime_ns)

    @property
    def mlflow(self) -> MlflowClient:
        return MlflowClient(f"sqlite:///{self.folder}/mlflow.db")

    def stages(self, stage: str) -> list[Run]:
        """Runs of a stage in MLflow, the latest first."""
        client = self.mlflow
        found = client.get_experiment_by_name("scaled-yolov4")
        assert found
        return list(client.search_runs([found.experiment_id], f"tags.`scaled_yolov4.stage` = '{stage}'"))

    def outcome(self) -> tuple[str, str]:
        """Of the latest run."""
        tags = self.stages("pipeline")[0].data.tags
        return tags["scaled_yolov4.outcome"], tags["scaled_yolov4.reason"]

    def champion(self, model: str) -> int:
        return int(self.mlflow.get_model_version_by_alias(f"scaled-yolov4-{model}", "champion").version)


def steps(artifacts: Path) -> set[str]:
    return {path.name for path in artifacts.iterdir()}


def read_lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def read(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.mark.slow
def test_nothing_new_ends_after_the_decision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a champion of the same data, parameters, code and image, with hand-made results."""
    here = Here(tmp_path, MODELS[:1])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv(IMAGE_VARIABLE, IMAGE)
    (tmp_path / "params.yaml").write_text(here.text)
    params = parameters.load(tmp_path / "params.yaml")
    prepare.run(params, out=tmp_path / "prepared")
    outputs = make_outputs(tmp_path / "champion", tmp_path / "prepared", classes=list("0123456789"), right=2)
    register.run(params, model=MODELS[0], **outputs.paths)
    promote.run(params, model=MODELS[0], registered=outputs.registered, data=outputs.data, out=outputs.promoted)

    artifacts = here.run()
    assert steps(artifacts) == PREPARED
    assert here.outcome() == ("unchanged", "yolov4-tiny: unchanged")
    page = (artifacts / "retrain/decisions").read_text()
    assert "Version 1, the champion, has the same data, parameters, code, image." in page
    [decision] = here.stages("retrain")
    assert decision.data.tags["scaled_yolov4.action"] == "unchanged"

    assert steps(here.run()) == UNCHANGED  # the last run noted which source that was
    assert here.outcome() == ("unchanged", "yolov4-tiny: unchanged")


@pytest.mark.slow
def test_a_run_that_fails_is_recorded_with_its_reason(tmp_path: Path, mlflow_database: Callable[[Path], str]) -> None:
    mlflow_database(tmp_path)
    here = Here(tmp_path, MODELS[:1])
    here.run("-S", "prepare.source=coco-dir", "-S", f"prepare.location={tmp_path}/nowhere", code=1)
    outcome, reason = here.outcome()
    assert outcome == "failed"
    assert reason.startswith("check-source: error: ")
    assert "nowhere" in reason
    assert here.stages("pipeline")[0].info.status == "FAILED"


@pytest.fixture
def nodes() -> Iterator[Any]:
    """A Ray cluster whose head runs only the driver; its two other nodes have one CPU each."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


@pytest.mark.slow
def test_two_models_from_nothing_to_promotion_then_unchanged_then_tuned(tmp_path: Path, nodes: Any) -> None:
    """Trials and trainings on two nodes."""
    search = ["evolve.trials=2", "evolve.epochs=1", "evolve.train_images=8", "evolve.val_images=4"]
    here = Here(tmp_path, MODELS, [*search, "train.workers=2"], nodes.address)
    first = here.run()
    assert sum("trial" in line for line in read_lines(first / "evolve/hyp/ledger.jsonl")) == 2
    trained = [read(path) for path in first.glob("for-loop-*/train/detector/train.json")]
    assert [record["workers"] for record in trained] == [2, 2]
    assert here.outcome() == ("succeeded", "yolov4-tiny: scratch, yolov4-tiny-3l: scratch")
    assert [here.champion(model) for model in MODELS] == [1, 1]
    comparison = read(first / "compare/comparison/comparison.json")["models"]
    assert {model: row["decision"] for model, row in comparison.items()} == dict.fromkeys(MODELS, "promote")
    assert any(row["on_front"] for row in comparison.values())
    assert (first / "compare/report").read_text().count("<img src='data:image/png") == 1

    second = here.run()
    assert here.outcome() == ("unchanged", "yolov4-tiny: unchanged, yolov4-tiny-3l: unchanged")
    assert steps(second) == UNCHANGED

    third = here.run("-S", "prepare.digits.train_images=25")  # 1 image of 37 is new: 2.7 %
    assert here.outcome() == ("succeeded", "yolov4-tiny: fine-tune, yolov4-tiny-3l: fine-tune")
    assert "2.70% of the images changed" in (third / "retrain/decisions").read_text()
    training = [read(path) for path in third.glob("for-loop-*/train/detector/train.json")]
    assert len(training) == 2
    assert all(record["started_from"] for record in training), training[0]
    here.run("-S", "prepare.digits.train_images=25")  # whichever was promoted, this has been judged
    assert here.outcome()[0] == "unchanged"

    fifth = here.run("-S", "prepare.digits.train_images=26", "-S", "retrain.fine_tune_from=0.5")
    assert here.outcome() == ("succeeded", "yolov4-tiny: evaluate, yolov4-tiny-3l: evaluate")
    assert steps(fifth) == PREPARED
    assert read(fifth / f"retrain/plan/{MODELS[1]}/evaluate/metrics.json")["images"] == 12
