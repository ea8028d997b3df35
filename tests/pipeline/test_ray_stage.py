"""The steps that run their stage as a RayJob: the command they submit, how they end, what they show."""

import json
import shlex
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from kfp import dsl
from kubernetes_server import KubernetesServer
from schemas import FOLDER, rayjob_problems
from waiting import join

from pipelines.graph.ray_step import JOBS, Platform, stage_job
from pipelines.graph.stage_components import RAY_COMPONENTS, STAGE_COMPONENTS
from pipelines.rayjob import api

ROOT = Path(__file__).parents[2]
RUN = "s3://mlops/v2/run-1"


def artifact(kind: type[Any], name: str, **metadata: str) -> Any:
    return kind(uri=f"{RUN}/{name}", metadata=metadata)


@pytest.fixture
def params(tmp_path: Path) -> dsl.Artifact:
    """The quickstart's parameters as the first step leaves them: a file here, and in the store."""
    path = tmp_path / "params"
    path.write_text((ROOT / "params.yaml").read_text())
    made = artifact(dsl.Artifact, "params", MLFLOW_TRACKING_URI="http://mlflow:5000")
    made.set_path(str(path))
    return made


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubernetesServer]:
    """A cluster named by the kubeconfig, and the namespace of the pod."""
    check = rayjob_problems if (FOLDER / "ray.io_rayjobs.yaml").exists() else lambda _: []
    with KubernetesServer(check) as running:
        monkeypatch.setenv("KUBECONFIG", str(running.kubeconfig(tmp_path / "kubeconfig")))
        (tmp_path / "namespace").write_text("ml")
        monkeypatch.setattr(api, "OWN_NAMESPACE", tmp_path / "namespace")
        monkeypatch.chdir(tmp_path)
        yield running


def options(command: list[str]) -> dict[str, str]:
    """--name value pairs; those of -S under their keys."""
    pairs = dict(zip(command[2::2], command[3::2], strict=True)) | {"": ""}
    changes = [b.split("=", 1) for a, b in zip(command[2::2], command[3::2], strict=True) if a == "-S"]
    return {key: value for key, value in pairs.items() if key.startswith("--")} | dict(changes)


def inputs() -> dict[str, Any]:
    return {"dataset": artifact(dsl.Dataset, "dataset"), "anchors": artifact(dsl.Artifact, "anchors")}


def test_training_reads_and_writes_the_store(params: dsl.Artifact) -> None:
    hyp, out = artifact(dsl.Artifact, "hyp"), artifact(dsl.Model, "train/detector")
    platform = Platform("run-1", "image:1", namespace="ml")
    job = stage_job("train", platform, params, model="yolov4-p7", **inputs(), hyp=hyp, detector=out)
    assert list(job.command[:2]) == ["scaled-yolov4", "train"]
    assert options(list(job.command)) == {
        "--params": f"{RUN}/params",
        "--model": "yolov4-p7",
        "--data": f"{RUN}/dataset",
        "--anchors": f"{RUN}/anchors/yolov4-p7.json",
        "--hyp": f"{RUN}/hyp/hyp.yaml",
        "--out": f"{RUN}/train/detector",
        "--work": f"{RUN}/train/work",
        "train.workers": "16",  # the quickstart's batch is 16: an image a GPU, on both nodes
        "train.gpus_per_worker": "1",
        "train.loader_workers": "8",
    }
    assert job.size.nodes == 2
    assert job.environment == {"MLFLOW_TRACKING_URI": "http://mlflow:5000"}
    assert job.namespace == "ml"


def test_a_small_batch_takes_fewer_nodes(params: dsl.Artifact) -> None:
    settings = yaml.safe_load(Path(params.path).read_text())
    settings["train"]["batch"] = 7
    Path(params.path).write_text(yaml.safe_dump(settings))
    out = artifact(dsl.Model, "train/detector")
    job = stage_job(
        "train", Platform("r", "i", namespace="ml"), params, model="yolov4-p7", **inputs(), hyp=out, detector=out
    )
    assert options(list(job.command))["train.workers"] == "7"
    assert job.size.nodes == 1


def test_evolution_grows_from_one_node(params: dsl.Artifact) -> None:
    settings = yaml.safe_load(Path(params.path).read_text())
    settings["evolve"] |= {"concurrent": 3, "model": "yolov4-tiny"}
    Path(params.path).write_text(yaml.safe_dump(settings))
    hyp = artifact(dsl.Artifact, "evolve/hyp")
    job = stage_job("evolve", Platform("r", "i", namespace="ml"), params, **inputs(), hyp=hyp)
    assert options(list(job.command))["evolve.gpus_per_trial"] == "1"
    assert (job.min_nodes, job.size.nodes) == (1, 3)  # one GPU a node, one a trial


def in_background(act: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    return thread


def run_train(params: dsl.Artifact, **changes: str) -> dsl.Metrics:
    """The component's own function; returns its metrics."""
    metrics, report = dsl.Metrics(uri="metrics"), dsl.HTML(uri="report")
    RAY_COMPONENTS["train"].python_func(  # pyright: ignore[reportFunctionMemberAccess]
        run="run-1",
        image="image:1",
        queue="gpus",
        account="training",
        node_selector={"pool": "gpu"},
        model="yolov4-tiny",
        params=params,
        dataset=artifact(dsl.Dataset, "dataset"),
        anchors=artifact(dsl.Artifact, "anchors"),
        hyp=artifact(dsl.Artifact, "hyp"),
        detector=dsl.Model(uri=changes.get("out", f"{RUN}/train/detector")),
        metrics=metrics,
        report=report,
    )
    return metrics


def test_a_step_shows_what_its_job_left_in_the_store(
    params: dsl.Artifact, server: KubernetesServer, store: Any
) -> None:
    def play() -> None:
        name = server.wait_for_job()
        spec = server.jobs[name]["spec"]
        out = options(shlex.split(spec["entrypoint"]))["--out"]
        key = f"{out.removeprefix(f's3://{store.bucket}/')}/train.json"
        boto3.client("s3").put_object(Bucket=store.bucket, Key=key, Body=json.dumps({"AP": 0.25}).encode())
        server.status(name, jobDeploymentStatus="Complete", jobStatus="SUCCEEDED")

    playing = in_background(play)
    metrics = run_train(params)
    join(playing)
    assert metrics.metadata == {"AP": 0.25}
    assert "Training of yolov4-tiny" in Path("report").read_text()
    [job] = server.jobs.values()
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    worker = job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]
    assert worker["serviceAccountName"] == "training"
    assert worker["nodeSelector"] == {"pool": "gpu"}


def test_a_step_ends_like_its_job(params: dsl.Artifact, server: KubernetesServer) -> None:
    message = "Job entrypoint command failed with exit code 2. No logs available."
    status = {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": "AppFailed", "message": message}
    playing = in_background(lambda: server.status(server.wait_for_job(), **status))
    with pytest.raises(SystemExit) as ended:
        run_train(params)
    join(playing)
    assert ended.value.code == 2


def test_results_outside_an_object_store_are_refused(
    params: dsl.Artifact, server: KubernetesServer, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run_train(params, out="gs://bucket/x")
    assert ended.value.code == 2
    assert "gs://bucket/x" in capsys.readouterr().err
    assert server.jobs == {}


def test_kfps_own_store_speaks_s3(params: dsl.Artifact) -> None:
    out = dsl.Model(uri="minio://mlpipeline/v2/detector")
    job = stage_job(
        "train", Platform("r", "i", namespace="ml"), params, model="yolov4-tiny", **inputs(), hyp=out, detector=out
    )
    assert options(list(job.command))["--out"] == "s3://mlpipeline/v2/detector"


def test_both_steps_are_components_of_the_same_interface() -> None:
    """What the graph connects is the same with RayJobs and without."""
    assert set(RAY_COMPONENTS) == set(JOBS) == {"train", "evolve"}
    for name, ray in RAY_COMPONENTS.items():
        usual = STAGE_COMPONENTS[name]
        own = {"run", "image", "queue", "account", "node_selector"}
        spec, other = ray.component_spec, usual.component_spec  # pyright: ignore[reportFunctionMemberAccess]
        assert set(spec.inputs) - own == set(other.inputs)
        assert set(spec.outputs) == set(other.outputs)
