"""`scaled-yolov4 pipeline submit`: what it leaves on a Kubeflow server, and how it ends."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from kfp import compiler, dsl
from kfp_server import KfpServer
from loopback import Fault
from pipeline_commands import PARAMS, ROOT, changed, error_line, pipeline, submitted
from typer.testing import CliRunner

from pipelines.cli import stages
from pipelines.graph.compile import COMPILED
from pipelines.kubeflow import client as kubeflow
from pipelines.kubeflow import connection


def test_submit_uploads_the_graph_and_starts_a_run(server: KfpServer) -> None:
    result = submitted(server, "-S", "train.epochs=3", "--model", "yolov4-csp", "--mlflow-uri", "http://mlflow:5000")
    assert result.exit_code == 0, result.output
    [run], [version] = server.runs, server.versions.values()
    assert run["runtime_config"]["parameters"] == {
        "params_yaml": PARAMS.read_text(),
        "overrides": ["train.epochs=3"],
        "models": ["yolov4-csp"],
        "mlflow_tracking_uri": "http://mlflow:5000",
    }
    assert run["pipeline_version_reference"]["pipeline_version_id"] == version["pipeline_version_id"]
    assert version["text"] == COMPILED.read_text()
    assert re.fullmatch(r"graph-[0-9a-f]{16}", version["name"])
    assert f"run: {run['run_id']}" in result.stdout
    assert f"{server.url}/#/runs/details/{run['run_id']}" in result.stdout


def test_a_new_version_only_when_the_graph_changed(server: KfpServer, tmp_path: Path) -> None:
    for _ in range(2):
        assert submitted(server).exit_code == 0
    assert "unchanged" in submitted(server).stdout
    assert len(server.versions) == 1
    assert "uploaded" in submitted(server, graph=changed(tmp_path)).stdout
    assert "unchanged" in submitted(server).stdout  # the first one again
    assert len(server.versions) == 2
    assert len(server.objects["pipelines"]) == len(server.objects["experiments"]) == 1
    assert len(server.runs) == 5


def test_a_pipeline_that_others_uploaded_gets_a_version_of_ours(server: KfpServer) -> None:
    client = connection.ClientWithTimeouts(host=server.url)
    client.upload_pipeline(str(COMPILED), "scaled-yolov4-full")
    assert "uploaded" in submitted(server).stdout
    assert "unchanged" in submitted(server).stdout
    assert len(server.objects["pipelines"]) == 1


@pytest.mark.parametrize(
    "fault",
    [
        Fault("GET", "healthz", status=503),
        Fault("POST", "pipelines$", status=500, done=True),
        Fault("POST", "upload_version", status=0, done=True),
        Fault("POST", "upload_version", status=502, times=2),
        Fault("POST", "experiments", status=500, done=True),
        Fault("POST", "runs", status=503, done=True),
        Fault("POST", "runs", status=0, done=True),
        Fault("POST", "runs", status=500),
        Fault("GET", "versions", status=0, times=2),
        Fault("GET", "experiments", delay=0.3),
    ],
    ids=lambda fault: f"{fault.method} {fault.pattern} {fault.status}{' done' * fault.done}",
)
def test_failures_in_passing_make_nothing_twice(server: KfpServer, fault: Fault) -> None:
    server.faults.append(fault)
    result = submitted(server)
    assert result.exit_code == 0, result.output
    assert fault.times == 0
    assert len(server.objects["pipelines"]) == len(server.versions) == len(server.runs) == 1
    assert len(server.objects["experiments"]) == 1


def test_a_run_of_the_same_name_is_another_run(server: KfpServer) -> None:
    for _ in range(2):
        assert submitted(server, "--run-name", "nightly").exit_code == 0
    assert [run["display_name"] for run in server.runs] == ["nightly", "nightly"]


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def note(params_yaml: str, overrides: list, text: dsl.Output[dsl.Artifact]):
    if "seed=13" in overrides:
        raise SystemExit("unlucky")
    with open(text.path, "w") as file:  # noqa: PTH123 (a component's body imports what it needs)
        file.write(f"{len(params_yaml)} {overrides}")


@dsl.pipeline(name="tiny")
def tiny(params_yaml: str = "", overrides: list = [], models: list = []):
    note(params_yaml=params_yaml, overrides=overrides)


@pytest.mark.parametrize("fails", [False, True])
def test_a_submitted_specification_runs(
    server: KfpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
):
    """What the server was given, with the parameters it was given, under KFP's local runner."""
    graph, root = tmp_path / "tiny.yaml", tmp_path / "root"
    compiler.Compiler().compile(tiny, str(graph))  # pyright: ignore[reportArgumentType]
    override = "seed=13" if fails else "seed=7"
    submitted(server, "-S", override, graph=graph)
    [run] = server.runs
    server.execute(run, root)
    result = pipeline(server, "status", run["run_id"], "--follow")
    assert result.exit_code == (1 if fails else 0), result.output
    assert f"note: {'FAILED' if fails else 'SUCCEEDED'}" in result.stdout
    if not fails:
        [text] = root.rglob("text")
        assert text.read_text() == f"{len(PARAMS.read_text())} ['seed=7']"


def test_the_call_of_kfp_in_the_docs_starts_a_run(server: KfpServer) -> None:
    from click.testing import CliRunner as ClickRunner
    from kfp.cli.cli import cli as kfp

    result = submitted(server)
    version = re.search(r"-> (\S+)$", result.stdout, re.MULTILINE)
    assert version
    page = (ROOT / "docs" / "pipeline.md").read_text()
    [line] = [line for line in page.splitlines() if line.startswith("kfp --endpoint")]
    line = line.replace("http://localhost:8080", server.url).replace("VERSION_ID", version[1])
    arguments = shlex.split(line.replace('"$(cat params.yaml)"', "seed:"))[1:]
    ran = ClickRunner().invoke(kfp, arguments, obj={})
    assert ran.exit_code == 0, ran.output
    run = server.runs[-1]
    assert run["display_name"] == "by-hand"
    assert run["runtime_config"]["parameters"] == {"params_yaml": "seed:", "overrides": ["train.epochs=60"]}


# Errors


def test_a_wrong_parameter_is_refused_before_anything_is_sent(server: KfpServer) -> None:
    result = submitted(server, "-S", "train.epochs=0")
    assert result.exit_code == 2
    assert "train.epochs" in error_line(result)
    assert server.requests == []


@pytest.mark.parametrize(
    "given",
    [
        ["--model", "yolov4-tinny"],
        ["-S", "models=[yolov4-tinny]"],
        ["-S", "evolve.model=yolov4-tinny"],
        ["-S", "train.per_model.yolov4-tinny.epochs=3"],
    ],
)
def test_an_unknown_model_is_refused_before_anything_is_sent(server: KfpServer, given: list[str]) -> None:
    result = submitted(server, *given)
    assert result.exit_code == 2
    assert "unknown model 'yolov4-tinny'; did you mean yolov4-tiny, " in error_line(result)
    assert server.requests == []


def test_training_steps_are_not_sized_for_an_unknown_model(tmp_path: Path) -> None:
    for name in ("yolov4-tinny", "cosa-9x9x"):
        given = ["pipeline", "compile", "--out", str(tmp_path / "graph.yaml"), "--sized-for", name]
        result = CliRunner().invoke(stages, given)
        assert result.exit_code == 2
        assert error_line(result).startswith(f"error: --sized-for: unknown model '{name}'; did you mean ")


def test_a_graph_without_our_parameters_is_refused(server: KfpServer, tmp_path: Path) -> None:
    spec = {"pipelineInfo": {"name": "other"}, "root": {"inputDefinitions": {"parameters": {"a": {}}}}}
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(spec))
    result = submitted(server, graph=tmp_path / "other.yaml")
    assert result.exit_code == 2
    assert "params_yaml" in error_line(result)


def test_a_file_that_is_no_graph_is_refused(server: KfpServer) -> None:
    result = submitted(server, graph=PARAMS)
    assert result.exit_code == 2
    assert "params.yaml: not a compiled pipeline" in error_line(result)


def test_options_that_a_compiled_graph_ignores_are_refused(server: KfpServer) -> None:
    result = submitted(server, "--image", "registry/name:1", "--gpus", "2")
    assert result.exit_code == 2
    assert error_line(result).endswith("give --image and --gpus to `pipeline compile` instead")
    assert server.requests == []


def test_a_refused_token_is_one_line_and_exit_code_2(server: KfpServer) -> None:
    server.token = "right"
    result = submitted(server, "--token", "wrong")
    assert result.exit_code == 2
    assert "401" in error_line(result)
    assert "KFP_EXISTING_TOKEN" in error_line(result)
    assert submitted(server, "--token", "right").exit_code == 0


def test_an_unknown_run_is_one_line_and_exit_code_2(server: KfpServer) -> None:
    for command in ("status", "cancel"):
        result = pipeline(server, command, "run-99")
        assert result.exit_code == 2
        assert "run-99 not found" in error_line(result)


@pytest.mark.parametrize("fault", [None, Fault("GET", "healthz", status=503, times=1000)], ids=["down", "503"])
def test_a_server_that_stays_down_is_exit_code_3(
    server: KfpServer, fault: Fault | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubeflow.Kubeflow.__init__, "__kwdefaults__", {"retry_limit_s": 0.5})
    if fault:
        server.faults.append(fault)
        result = submitted(server)
    else:
        result = CliRunner().invoke(stages, ["pipeline", "status", "--host", "http://127.0.0.1:1"])
    assert result.exit_code == 3
    assert "Kubeflow at http://127.0.0.1" in error_line(result)


def test_a_server_that_does_not_answer_is_given_up(server: KfpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubeflow.Kubeflow.__init__, "__kwdefaults__", {"retry_limit_s": 0.1})
    monkeypatch.setattr(connection, "TIMEOUTS", (0.2, 0.2))
    server.faults.append(Fault("GET", "healthz", delay=1, times=1000))
    assert submitted(server).exit_code == 3


def test_without_a_server_the_error_names_the_options() -> None:
    result = CliRunner().invoke(stages, ["pipeline", "status"])
    assert result.exit_code == 2
    assert "KFP_ENDPOINT" in error_line(result)


@pytest.mark.parametrize("name", ["KFP_ENDPOINT", "KF_PIPELINES_ENDPOINT"])
def test_the_server_is_named_by_kfps_own_variables(
    server: KfpServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.token = "right"
    submitted(server, "--token", "right")
    monkeypatch.setenv(name, server.url)
    monkeypatch.setenv("KFP_EXISTING_TOKEN", "right")
    assert CliRunner().invoke(stages, ["pipeline", "status"]).exit_code == 0
