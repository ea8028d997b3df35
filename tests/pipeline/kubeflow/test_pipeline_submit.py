"""`scaled-yolov4 pipeline ...` against a Kubeflow server: what it leaves there, what it prints, how it ends."""

import re
import shlex
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from imports import TYPER, run_command
from kfp import compiler, dsl
from kfp_server import KfpServer
from loopback import Fault
from schemas import FOLDER, kfp_swagger
from typer.testing import CliRunner, Result
from waiting import join, until

from pipelines.cli import stages
from pipelines.graph.compile import COMPILED
from pipelines.kubeflow import client as kubeflow
from pipelines.kubeflow import connection, live

ROOT = Path(__file__).parents[2]
PARAMS = ROOT / "params.yaml"


@pytest.fixture
def server() -> Iterator[KfpServer]:
    swagger = kfp_swagger() if (FOLDER / "kfp_api_v2beta1.swagger.json").exists() else None
    with KfpServer(swagger=swagger) as running:
        yield running
    assert running.problems == []


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nobody's own settings, and no waiting between two looks at a run."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (
        "KF_PIPELINES_ENDPOINT",
        "KFP_ENDPOINT",
        "KFP_NAMESPACE",
        "KFP_EXISTING_TOKEN",
        "KUBERNETES_SERVICE_HOST",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(live.follow, "__kwdefaults__", {"poll": 0.05, "heartbeat": 60})


def pipeline(server: KfpServer, *arguments: str) -> Result:
    """A command in the test's own process: importing kfp takes two seconds."""
    return CliRunner().invoke(stages, ["pipeline", *arguments, "--host", server.url], prog_name="scaled-yolov4")


def submitted(server: KfpServer, *arguments: str, graph: Path = COMPILED) -> Result:
    given = ["--graph", str(graph), "--params", str(PARAMS), "--no-follow"]
    return pipeline(server, "submit", *given, *arguments)


def scheduled(server: KfpServer, cron: str = "0 0 2 * * *", *arguments: str, graph: Path = COMPILED) -> Result:
    given = ["--graph", str(graph), "--params", str(PARAMS), "--cron", cron]
    return pipeline(server, "schedule", *given, *arguments)


def changed(tmp_path: Path) -> Path:
    """The compiled pipeline with another image."""
    path = tmp_path / "changed.yaml"
    path.write_text(COMPILED.read_text().replace("scaled-yolov4:latest", "registry/other:2"))
    return path


def error_line(result: Result) -> str:
    """The one line of an error."""
    lines = [line for line in result.stderr.splitlines() if line]
    assert len(lines) == 1, result.output
    return lines[0]


# submit


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
def test_a_server_that_stays_away_is_exit_code_3(
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


def test_without_a_server_the_mend_is_named() -> None:
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


# Following


def while_followed(server: KfpServer, play: Callable[[dict[str, Any]], None], *arguments: str) -> Result:
    """Submit and follow a run while `play` moves it."""

    def act() -> None:
        play(until(lambda: server.runs, "a run")[0])

    actor = threading.Thread(target=act, daemon=True)
    actor.start()
    given = ["--graph", str(COMPILED), "--params", str(PARAMS), *arguments]
    result = pipeline(server, "submit", *given)
    join(actor)
    return result


def looked_at(server: KfpServer, times: int) -> None:
    """Wait until the run was requested so many times more."""
    wanted = len(server.requests) + times
    until(lambda: len(server.requests) >= wanted, f"{times} requests more")


def test_a_run_is_followed_step_by_step(server: KfpServer) -> None:
    def play(run: dict[str, Any]) -> None:
        server.advance(run, "RUNNING", prepare="RUNNING", **{"prepare-driver": "SUCCEEDED"})
        looked_at(server, 3)  # the first may have been under way
        server.faults.append(Fault("GET", "runs/", status=502, times=2))
        server.advance(run, "RUNNING", prepare="SUCCEEDED", train="RUNNING")
        looked_at(server, 5)
        server.advance(run, "SUCCEEDED", train="SUCCEEDED")

    result = while_followed(server, play)
    assert result.exit_code == 0, result.output
    lines = [line for line in result.stdout.splitlines() if re.match(r"(run|prepare.*|train): [A-Z]+$", line)]
    steps = [line for line in lines if not line.startswith("run")]
    assert steps == ["prepare: RUNNING", "prepare: SUCCEEDED", "train: RUNNING", "train: SUCCEEDED"]
    assert lines[-3:].count("run: SUCCEEDED") == 1


@pytest.mark.parametrize("state", ["FAILED", "CANCELED"])
def test_a_run_that_did_not_succeed_is_exit_code_1(server: KfpServer, state: str) -> None:
    def play(run: dict[str, Any]) -> None:
        server.advance(run, state, train="FAILED")
        run["run_details"]["task_details"][0]["error"] = {"code": 2, "message": "out of\nmemory"}

    result = while_followed(server, play)
    assert result.exit_code == 1
    assert state in error_line(result)


def test_following_ends_at_its_limit_while_the_run_goes_on(server: KfpServer) -> None:
    result = while_followed(server, lambda run: server.advance(run, "RUNNING"), "--hours", "0")
    assert result.exit_code == 3
    assert "it continues" in error_line(result)


def test_the_table_of_a_run(server: KfpServer) -> None:
    submitted(server, "--run-name", "nightly")
    [run] = server.runs
    server.advance(run, "RUNNING", prepare="SUCCEEDED", train="FAILED")
    run["run_details"]["task_details"][1]["error"] = {"code": 2, "message": "out of\nmemory"}
    table = pipeline(server, "status", run["run_id"]).stdout
    assert "nightly: RUNNING" in table
    assert re.search(r"prepare +│ SUCCEEDED │ +0:00:0\d", table)
    assert re.search(r"train +│ FAILED .*out of memory", table)


def test_the_latest_runs_are_listed_newest_first(server: KfpServer) -> None:
    for name in ("first", "second", "third"):
        submitted(server, "--run-name", name)
    table = pipeline(server, "status", "--number", "2").stdout
    assert table.index("third") < table.index("second")
    assert "first" not in table


def test_cancel_ends_a_run_that_goes(server: KfpServer) -> None:
    submitted(server)
    [run] = server.runs
    assert pipeline(server, "cancel", run["run_id"]).exit_code == 0
    assert run["state"] == "CANCELING"
    server.advance(run, "CANCELED")
    result = pipeline(server, "cancel", run["run_id"])
    assert result.exit_code == 2
    assert "has ended (CANCELED)" in error_line(result)


# schedule


def test_a_schedule_runs_one_at_a_time_and_makes_up_for_nothing(server: KfpServer) -> None:
    result = scheduled(server, "0 0 2 * * *", "-S", "train.epochs=3")
    assert result.exit_code == 0, result.output
    [made] = server.schedules
    assert made["trigger"] == {"cron_schedule": {"cron": "0 0 2 * * *"}}
    assert (made["max_concurrency"], made["no_catchup"], made["mode"]) == ("1", True, "ENABLE")
    assert made["runtime_config"]["parameters"]["overrides"] == ["train.epochs=3"]
    assert made["display_name"] == "scaled-yolov4-full"


def test_the_same_schedule_is_left_alone(server: KfpServer) -> None:
    scheduled(server)
    [made] = server.schedules
    assert "unchanged" in scheduled(server).stdout
    assert server.schedules == [made]


def test_a_disabled_schedule_is_enabled_again(server: KfpServer) -> None:
    scheduled(server)
    [made] = server.schedules
    made["status"] = "DISABLED"
    scheduled(server)
    assert [item["status"] for item in server.schedules] == ["ENABLED"]


def test_another_time_graph_or_parameter_replaces_the_schedule(server: KfpServer, tmp_path: Path) -> None:
    scheduled(server)
    for result in (
        scheduled(server, "0 30 4 * * *"),
        scheduled(server, "0 30 4 * * *", "-S", "seed=7"),
        scheduled(server, "0 30 4 * * *", "-S", "seed=7", graph=changed(tmp_path)),
    ):
        assert "updated" in result.stdout
        assert len(server.schedules) == 1
    [made] = server.schedules
    assert made["trigger"]["cron_schedule"]["cron"] == "0 30 4 * * *"
    assert made["pipeline_version_reference"]["pipeline_version_id"] in list(server.versions)[-1]


def test_duplicates_that_others_left_go(server: KfpServer) -> None:
    scheduled(server)
    [made] = server.schedules
    for number in range(3):
        server.objects["recurringruns"][f"other-{number}"] = made | {"recurring_run_id": f"other-{number}"}
    server.page_size = 2  # they come in pages
    assert "unchanged" in scheduled(server).stdout
    assert len(server.schedules) == 1


@pytest.mark.parametrize(
    "fault",
    [
        Fault("POST", "recurringruns$", status=503, done=True),
        Fault("POST", "recurringruns$", status=0, done=True),
        Fault("DELETE", "recurringruns", status=500, done=True),
    ],
    ids=["503", "lost", "delete"],
)
def test_a_schedule_is_changed_once_whatever_the_server_answers(server: KfpServer, fault: Fault) -> None:
    scheduled(server)
    server.faults.append(fault)
    assert scheduled(server, "0 30 4 * * *").exit_code == 0
    assert fault.times == 0
    assert [item["trigger"]["cron_schedule"]["cron"] for item in server.schedules] == ["0 30 4 * * *"]


def test_schedules_are_listed_and_deleted(server: KfpServer) -> None:
    scheduled(server)
    scheduled(server, "0 0 4 * * *", "--name", "weekly")
    table = pipeline(server, "schedule", "--list").stdout
    assert "0 0 2 * * *" in table
    assert "weekly" in table
    assert pipeline(server, "schedule", "--delete").exit_code == 0
    assert [item["display_name"] for item in server.schedules] == ["weekly"]
    result = pipeline(server, "schedule", "--delete")
    assert result.exit_code == 2
    assert "there is none" in error_line(result)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--cron", "0 2 * * *"], "six fields"),
        ([], "one of --cron, --list and --delete"),
        (["--cron", "0 0 2 * * *", "--delete"], "one of --cron, --list and --delete"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(server: KfpServer, arguments: list[str], words: str) -> None:
    result = pipeline(server, "schedule", *arguments)
    assert result.exit_code == 2
    assert words in error_line(result)


# compile, and the whole way


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


def test_the_command_is_mounted_and_loads_nothing_heavy() -> None:
    said, imported = run_command("pipelines.cli", "stages", "pipeline", "--help")
    for name in ("compile", "submit", "schedule", "status", "cancel"):
        assert f"  {name} " in said
    assert imported <= {*TYPER, "pydantic", "pydantic_core", "typing_inspection", "annotated_types"}


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
