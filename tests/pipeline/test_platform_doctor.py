"""`doctor --cluster` against a Kubernetes API and AWS's on loopback."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hcl2
import pytest
import yaml
from loopback import LoopbackServer, Request
from typer.testing import CliRunner

from pipelines.cli import stages

ROOT = Path(__file__).parents[2]
SLICES = "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices"
PLATFORM = {
    "name": "scaled-yolov4-dev",
    "region": "eu-central-1",
    "cluster": {"name": "scaled-yolov4-dev", "endpoint": "https://127.0.0.1:9"},
    "image": {"repository": "1.dkr.ecr.eu-central-1.amazonaws.com/scaled-yolov4", "tag": "1"},
    "pipelines": {
        "namespace": "kubeflow",
        "service_account": "pipeline-runner",
        "api_uri": "http://ml-pipeline.kubeflow.svc.cluster.local:8888",
    },
    "training": {"queue": "training", "service_account": "training"},
    "mlflow": {"tracking_uri": "http://mlflow.mlflow.svc.cluster.local:5000"},
    "prometheus": "http://prometheus.monitoring.svc.cluster.local:9090",
    "buckets": {"dvc": "data-bucket"},
}


def pods(*ready: bool) -> dict[str, Any]:
    """The endpoint slice of a service with these pods."""
    endpoints = [{"addresses": ["10.0.0.1"], "conditions": {"ready": one}} for one in ready]
    return {"items": [{"addressType": "IPv4", "endpoints": endpoints}]}


@dataclass
class Cloud(LoopbackServer):
    """Answers by path; anything else is 404."""

    there: dict[str, Any] = field(
        default_factory=lambda: {
            "/version/": {"gitVersion": "v1.33.0", "major": "1", "minor": "33", "buildDate": "", "compiler": "",
                          "gitCommit": "", "gitTreeState": "", "goVersion": "", "platform": ""},
            "/apis/ray.io/v1/namespaces/kubeflow/rayjobs": {"items": []},
            "/apis/kueue.x-k8s.io/v1beta2/namespaces/kubeflow/localqueues/training": {},
            "/api/v1/namespaces/kubeflow/serviceaccounts/pipeline-runner": {},
            "/api/v1/namespaces/kubeflow/serviceaccounts/training": {},
            **{SLICES.format(namespace): pods(True) for namespace in ("kubeflow", "mlflow", "monitoring")},
            "/data-bucket": "",
            "ecr": {"imageDetails": []},
        }
    )  # fmt: skip

    def respond(self, request: Request) -> tuple[int, Any]:
        path = "ecr" if "x-amz-target" in request.headers else request.path
        return (200, self.there[path]) if path in self.there else (404, {"message": "not found", "code": 404})


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with Cloud() as cloud:
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": cloud.url}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        (tmp_path / "config").write_text(yaml.safe_dump(config))
        given = {"KUBECONFIG": str(tmp_path / "config"), "AWS_ENDPOINT_URL": cloud.url, "AWS_MAX_ATTEMPTS": "1"}
        given |= {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "eu-central-1"}
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        yield cloud


def examined(tmp_path: Path, platform: Any = PLATFORM) -> tuple[int, list[str]]:
    (tmp_path / "platform.json").write_text(json.dumps(platform))
    done = CliRunner().invoke(stages, ["doctor", "--cluster", str(tmp_path / "platform.json")])
    return done.exit_code, done.output.splitlines()


def test_terraform_outputs_what_is_read() -> None:
    outputs = hcl2.loads((ROOT / "infra/terraform/modules/platform/outputs.tf").read_text(encoding="utf-8"))["output"]
    [platform] = [block['"platform"']["value"] for block in outputs if '"platform"' in block]
    assert PLATFORM.keys() <= platform.keys()
    for part, content in PLATFORM.items():
        if isinstance(content, dict) and part != "buckets":  # they are named there by another map
            assert content.keys() <= platform[part].keys()


def test_a_platform_as_built_passes(cloud: Cloud, tmp_path: Path) -> None:
    code, lines = examined(tmp_path)
    assert (code, [line for line in lines if not line.startswith("ok ")]) == (0, [])
    assert len(lines) == 10
    assert lines[0] == "ok   kubernetes: version v1.33.0"


def test_whatever_is_missing_has_its_line_and_its_fix(cloud: Cloud, tmp_path: Path) -> None:
    cloud.there[SLICES.format("mlflow")] = pods(False)
    for path in ("/apis/kueue.x-k8s.io/v1beta2/namespaces/kubeflow/localqueues/training", "/data-bucket", "ecr"):
        del cloud.there[path]
    code, lines = examined(tmp_path)
    failed = {line[5:].split(":")[0]: line for line in lines if line.startswith("FAIL")}
    assert code == 2
    assert failed.keys() == {"kueue", "mlflow", "bucket dvc", "image"}
    assert failed["mlflow"].startswith("FAIL mlflow: no pod of the service mlflow in mlflow is ready; kubectl")
    assert "docker push" in failed["image"]


def test_without_a_cluster_every_check_says_so(tmp_path: Path, cloud: Cloud) -> None:
    config = yaml.safe_load((tmp_path / "config").read_text())
    config["clusters"][0]["cluster"]["server"] = "http://127.0.0.1:9"
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    code, lines = examined(tmp_path)
    assert code == 2
    assert "Kubernetes cannot be reached" in lines[0]
    assert lines[-1].startswith("ok   image")


@pytest.mark.parametrize("wrong", [[], {}, "text", {**PLATFORM, "training": {"queue": "a"}}])
def test_another_file_is_refused_in_one_line(cloud: Cloud, tmp_path: Path, wrong: Any) -> None:
    code, lines = examined(tmp_path, wrong)
    assert code == 2
    assert len(lines) == 1
    assert "terraform output -json platform" in lines[0]
