"""`scaled-yolov4 pipeline schedule`: one schedule of a name, whatever the server answers."""

from pathlib import Path

import pytest
from kfp_server import KfpServer
from loopback import Fault
from pipeline_commands import changed, error_line, pipeline, scheduled


def test_a_schedule_runs_one_at_a_time_and_catches_up_on_nothing(server: KfpServer) -> None:
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
