"""DVC's graph and the KFP graph are one graph, and the compiled file is the current one. Nothing is run here."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.repo import Repo
from dvc.stage import PipelineStage

from components import dvc_file, parameter_file, stage_files
from components.stage_table import default_paths
from pipelines.graph import compile as pipeline_compile
from pipelines.graph.resources import resources
from pipelines.graph.target import Target

ROOT = Path(__file__).parents[2]
PER_MODEL = ["train", "evaluate", "export", "benchmark", "register", "promote"]
STAGES = ["prepare", "anchors", "evolve", *PER_MODEL, "compare"]
# Which parameters and data, whether at all, and what is left: no results of models.
OWN = {"parameters", "check-source", "retrain", "finish"}
Edges = set[tuple[str, str]]  # (producer, consumer)


@pytest.fixture(scope="module")
def dvc_repo() -> Iterator[Repo]:
    with Repo(str(ROOT)) as repo:
        yield repo


def dvc_stages(repo: Repo) -> list[PipelineStage]:
    return [stage for stage in repo.index.stages if isinstance(stage, PipelineStage)]


def base_name(stage: Any) -> str:
    """train@yolov4-tiny -> train"""
    return stage.name.partition("@")[0]


def kfp_graph(text: str = "") -> tuple[set[str], Edges]:
    """Steps and artifact edges of the compiled pipeline, except its own."""
    spec = next(yaml.safe_load_all(text or pipeline_compile.COMPILED.read_text()))
    edges: Edges = set()
    names: set[str] = set()

    def component(task: dict[str, Any]) -> dict[str, Any]:
        return spec["components"][task["componentRef"]["name"]]

    def producer(dag: dict[str, Any], name: str, artifact: str) -> str:
        """The step behind an output artifact of a task, which may be a group of steps."""
        inner = component(dag["tasks"][name]).get("dag")
        if inner is None:
            return name
        [selector] = inner["outputs"]["artifacts"][artifact]["artifactSelectors"]
        return producer(inner, selector["producerSubtask"], selector["outputArtifactKey"])

    def walk(dag: dict[str, Any], producers: dict[str, str]) -> None:
        """`producers` names the step behind each input artifact of this (sub)graph."""
        for task in dag["tasks"].values():
            inputs: dict[str, str] = {}
            for name, source in task.get("inputs", {}).get("artifacts", {}).items():
                if out := source.get("taskOutputArtifact"):
                    inputs[name] = producer(dag, out["producerTask"], out["outputArtifactKey"])
                else:
                    inputs[name] = producers[source["componentInputArtifact"]]
            if "dag" in component(task):
                walk(component(task)["dag"], inputs)
            else:
                names.add(task["taskInfo"]["name"])
                edges.update((source, task["taskInfo"]["name"]) for source in inputs.values())

    walk(spec["root"]["dag"], {})
    return names - OWN, {edge for edge in edges if not OWN & set(edge)}


def test_both_graphs_have_the_same_stages(dvc_repo: Repo) -> None:
    names, _ = kfp_graph()
    assert {base_name(stage) for stage in dvc_stages(dvc_repo)} == names == set(STAGES)


def test_both_graphs_have_the_same_edges(dvc_repo: Repo) -> None:
    dvc_edges = {(base_name(producer), base_name(consumer)) for consumer, producer in dvc_repo.index.graph.edges}
    _, kfp_edges = kfp_graph()
    assert dvc_edges == kfp_edges


def test_with_ray_jobs_it_is_the_same_graph() -> None:
    text = pipeline_compile.compiled(Target(ray_jobs=True, gpus=1))
    assert kfp_graph(text) == kfp_graph()
    spec = next(yaml.safe_load_all(text))
    for step in ("train", "evolve"):  # they only follow: the GPUs are the RayJob's
        assert "accelerator" not in spec["deploymentSpec"]["executors"][f"exec-{step}"]["container"]["resources"]


def test_every_model_has_its_own_stages(dvc_repo: Repo) -> None:
    models = parameter_file.load(ROOT / "params.yaml").models
    names = {stage.name for stage in dvc_stages(dvc_repo)}
    for stage in PER_MODEL:
        assert {f"{stage}@{model}" for model in models} <= names


def test_dvc_declares_the_paths_that_the_stages_use(dvc_repo: Repo) -> None:
    for stage in dvc_stages(dvc_repo):
        name, _, model = str(stage.name).partition("@")
        paths = {option: path for option, path in default_paths(name, model).items() if option != "work"}
        out = paths.pop("out")
        made = [Path(item.def_path) for item in stage.outs]
        read = [Path(item.def_path) for item in stage.deps]
        assert all(path.is_relative_to(out) for path in made), stage.name
        for path in paths.values():
            assert any(dep.is_relative_to(path) for dep in read), f"{stage.name} reads {path}"
        results = [dep for dep in read if dep.parts[0] in ("data", "outputs")]
        for dep in results:
            assert any(dep.is_relative_to(path) for path in paths.values()), f"{stage.name} does not read {dep}"


def test_data_that_the_user_made_a_dependency_stay_one(tmp_path: Path) -> None:
    text = dvc_file.of_checkout()
    assert text == (ROOT / "dvc.yaml").read_text()
    for folder in ("components", "yolo_core"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    own = text.replace(
        "    params:\n      - seed\n      - prepare\n", "      - /photos\n    params:\n      - seed\n      - prepare\n"
    )
    (tmp_path / "dvc.yaml").write_text(own)
    assert dvc_file.of_checkout(root=tmp_path) == own != text


def test_the_files_that_follow_from_the_table_are_current() -> None:
    assert stage_files.main(["--check"]) == 0


def test_the_compiled_pipeline_is_current() -> None:
    assert pipeline_compile.main(["--check"]) == 0


def test_a_stale_file_is_one_line_with_its_fix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stale = tmp_path / "old.yaml"
    stale.write_text("old")
    assert pipeline_compile.main(["--check", "--out", str(stale)]) == 1
    assert capsys.readouterr().err == f"{stale}: stale; run `python -m pipelines.graph.compile` and commit the file\n"


def test_no_step_installs_packages_or_caches() -> None:
    spec = next(yaml.safe_load_all(pipeline_compile.COMPILED.read_text()))
    executors = spec["deploymentSpec"]["executors"]
    assert len(executors) == len(STAGES) + len(OWN)
    assert "pip install" not in str(executors)
    dags = [spec["root"]["dag"], *(part["dag"] for part in spec["components"].values() if "dag" in part)]
    steps = [task for dag in dags for task in dag["tasks"].values() if "iterator" not in str(task)[:20]]
    assert not [task for task in steps if task.get("cachingOptions", {}).get("enableCache")]


def test_gpus_and_image_are_fixed_at_compile_time() -> None:
    target = Target(image="registry/name:1", gpus=2, sized_for="yolov4-csp", node_selector=(("pool", "gpu"),))
    spec, platform = yaml.safe_load_all(pipeline_compile.compiled(target))
    containers = {name: part["container"] for name, part in spec["deploymentSpec"]["executors"].items()}
    kubernetes = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert {container["image"] for container in containers.values()} == {"registry/name:1"}
    for step, row in resources(target).items():
        accelerator = containers[f"exec-{step}"]["resources"].get("accelerator", {})
        assert accelerator.get("resourceCount") == ("2" if row.gpu else None)
        mounts = kubernetes.get(f"exec-{step}", {}).get("emptyDirMounts", [])
        assert [(mount["sizeLimit"], mount["medium"]) for mount in mounts] == ([(row.shm, "Memory")] if row.shm else [])
        labels = kubernetes[f"exec-{step}"].get("nodeSelector", {}).get("labels", {})
        assert labels == ({"pool": "gpu"} if row.gpu else {})


def test_kubeflow_retries_only_where_a_lost_node_costs_hours() -> None:
    spec = next(yaml.safe_load_all(pipeline_compile.COMPILED.read_text()))
    dags = [spec["root"]["dag"], *(part["dag"] for part in spec["components"].values() if "dag" in part)]
    tasks = [task for dag in dags for task in dag["tasks"].values()]
    retried = {task["taskInfo"]["name"]: task["retryPolicy"] for task in tasks if "retryPolicy" in task}
    assert set(retried) == {
        "train",
        "evolve",
        "finish",
    }  # finish: leftover RayJobs cost money, and retrying is harmless
    assert retried["train"]["backoffFactor"] == 2


def test_the_last_step_always_runs_and_only_chosen_models_are_trained() -> None:
    spec = next(yaml.safe_load_all(pipeline_compile.COMPILED.read_text()))
    root = spec["root"]["dag"]["tasks"]
    assert root["finish"]["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"
    [rest] = [name for name in root if name != "finish"]
    body = spec["components"][root[rest]["componentRef"]["name"]]["dag"]["tasks"]
    assert unguarded(body) == {"parameters", "check-source"}
    looked_at = guarded(spec, body)
    assert unguarded(looked_at) == {"prepare", "retrain"}
    assert {"anchors", "evolve", "compare"} < set(guarded(spec, looked_at))


def unguarded(tasks: dict) -> set[str]:
    return {task["taskInfo"]["name"] for task in tasks.values() if "condition" not in task.get("triggerPolicy", {})}


def guarded(spec: dict, tasks: dict) -> dict:
    """The tasks behind the one condition among `tasks`."""
    [behind] = [task for task in tasks.values() if "condition" in task.get("triggerPolicy", {})]
    return spec["components"][behind["componentRef"]["name"]]["dag"]["tasks"]
