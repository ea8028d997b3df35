"""`scaled-yolov4 pipeline submit`, `status` and `cancel`: runs that are followed, shown and cancelled."""

import re
import threading
from collections.abc import Callable
from typing import Any

import pytest
from kfp_server import KfpServer
from loopback import Fault
from pipeline_commands import PARAMS, error_line, pipeline, submitted
from typer.testing import Result
from waiting import join, until

from pipelines.graph.compile import COMPILED


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


def test_following_ends_at_its_limit_while_the_run_continues(server: KfpServer) -> None:
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


def test_cancel_ends_a_running_run(server: KfpServer) -> None:
    submitted(server)
    [run] = server.runs
    assert pipeline(server, "cancel", run["run_id"]).exit_code == 0
    assert run["state"] == "CANCELING"
    server.advance(run, "CANCELED")
    result = pipeline(server, "cancel", run["run_id"])
    assert result.exit_code == 2
    assert "has ended (CANCELED)" in error_line(result)
