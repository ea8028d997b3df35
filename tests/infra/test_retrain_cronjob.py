"""The CronJob that retrains without Kubeflow: its fields exist in Kubernetes, and it does what its page says."""

import copy
import json
import os
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from kubernetes.client import ApiClient

from components.lineage.record import IMAGE_VARIABLE
from components.monitoring.metrics import GATEWAY_VARIABLE
from pipelines.rayjob.sizes import GPU, job_size

ROOT = Path(__file__).parents[2]
CLAIM, CRONJOB = yaml.safe_load_all((ROOT / "infra/kubernetes/retrain-cronjob.yaml").read_text(encoding="utf-8"))
KINDS = {"PersistentVolumeClaim": "V1PersistentVolumeClaim", "CronJob": "V1CronJob"}
JOB = CRONJOB["spec"]["jobTemplate"]["spec"]
POD = JOB["template"]["spec"]
CONTAINERS = [*POD["initContainers"], *POD["containers"]]


def understood(document: dict[str, Any]) -> dict[str, Any]:
    """What the client's models keep of an object: unknown fields are dropped, missing required ones raise."""
    client = ApiClient()
    answer = SimpleNamespace(data=json.dumps(document))
    return client.sanitize_for_serialization(client.deserialize(answer, KINDS[document["kind"]]))


@pytest.mark.parametrize("document", [CLAIM, CRONJOB], ids=lambda document: document["kind"])
def test_every_field_is_one_of_kubernetes(document: dict[str, Any]) -> None:
    assert understood(document) == document


def test_a_misspelt_field_would_be_found() -> None:
    wrong = copy.deepcopy(CRONJOB)
    wrong["spec"]["concurencyPolicy"] = wrong["spec"].pop("concurrencyPolicy")
    assert understood(wrong) != wrong


def test_a_missing_required_field_would_be_found() -> None:
    wrong = copy.deepcopy(CRONJOB)
    del wrong["spec"]["schedule"]
    with pytest.raises(ValueError, match="schedule"):
        understood(wrong)


def test_one_at_a_time_and_no_backfill() -> None:
    spec = CRONJOB["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    assert 0 < spec["startingDeadlineSeconds"] < 86_400  # less than the time between two: at most one is caught up on
    assert re.fullmatch(r"\d+ \d+ \* \* \*", spec["schedule"])
    assert spec["timeZone"] == "Etc/UTC"


def test_it_does_what_make_retrain_does() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    recipe = makefile.split("\nretrain:")[1].split("\n\n")[0]
    commands = [" ".join(container["command"]).removeprefix("tini -g -- ") for container in CONTAINERS[1:]]
    assert re.findall(r"^\t@(.+)$", recipe, re.MULTILINE) == commands


def test_containers_run_the_image_unprivileged_on_the_same_volume() -> None:
    assert {container["image"] for container in CONTAINERS} == {"IMAGE:TAG"}
    assert POD["securityContext"]["runAsNonRoot"]
    uid = POD["securityContext"]["runAsUser"]
    assert f"USER {uid}:{uid}" in (ROOT / "Dockerfile").read_text(encoding="utf-8")
    volumes = {volume["name"] for volume in POD["volumes"]}
    for container in CONTAINERS:
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes
        assert container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"]
    claims = {v["persistentVolumeClaim"]["claimName"] for v in POD["volumes"] if "persistentVolumeClaim" in v}
    assert claims == {CLAIM["metadata"]["name"]}


def test_the_code_is_fetched_and_later_brought_up_to_date(tmp_path: Path) -> None:
    """Using the pod's own script, from a repository that gains a second commit before the second run."""
    source, volume = tmp_path / "source", tmp_path / "volume"
    volume.mkdir()
    subprocess.run(["git", "init", "--quiet", "--initial-branch=main", str(source)], check=True)
    for text in ("one", "two"):
        (source / "params.yaml").write_text(text)
        for words in (["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", text]):
            subprocess.run(["git", *words], cwd=source, check=True)
        fetched(source, volume)
        assert (volume / "project" / "params.yaml").read_text() == text
        (volume / "project" / "params.yaml").write_text("left behind by a run")
        (volume / "project" / "untracked").touch()  # as data and unfinished work are
    assert (volume / "project" / "untracked").exists()


def fetched(source: Path, volume: Path) -> None:
    code = CONTAINERS[0]
    given = {"REPOSITORY": str(source), "REVISION": "main"}
    assert given.keys() == {variable["name"] for variable in code["env"]}
    subprocess.run(
        [*code["command"], *code["args"]], cwd=volume, env={**os.environ, **given}, check=True, capture_output=True
    )


def test_containers_work_in_the_fetched_code() -> None:
    volume = CONTAINERS[0]["workingDir"]
    assert {container["volumeMounts"][0]["mountPath"] for container in CONTAINERS} == {volume}
    assert {container["workingDir"] for container in CONTAINERS[1:]} == {f"{volume}/project"}


def test_variables_are_those_that_are_read() -> None:
    for container in CONTAINERS[1:]:
        variables = {variable["name"]: variable["value"] for variable in container["env"]}
        assert variables.keys() == {"MLFLOW_TRACKING_URI", GATEWAY_VARIABLE, IMAGE_VARIABLE}
        assert variables[IMAGE_VARIABLE] == container["image"]


def test_the_smallest_model_fits() -> None:
    size = job_size("yolov4-tiny")
    requests = CONTAINERS[-1]["resources"]["requests"]
    assert requests == {"cpu": str(size.cpus), "memory": f"{size.memory}Gi", GPU: str(size.gpus)}
    shm = next(volume["emptyDir"] for volume in POD["volumes"] if volume["name"] == "shm")
    assert shm == {"medium": "Memory", "sizeLimit": f"{size.shm}Gi"}


def test_the_image_has_git() -> None:
    final = (ROOT / "Dockerfile").read_text(encoding="utf-8").rpartition("\nFROM ")[2]
    assert re.search(r"apt-get install [^\n]*\bgit\b", final)
