"""A Kubeflow server for the commands, and an environment without settings of the user."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from kfp_server import KfpServer
from schemas import FOLDER, kfp_swagger

from pipelines.kubeflow import live


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
