"""A project to train in: a prepared dataset, anchors and an empty MLflow database."""

from collections.abc import Callable
from pathlib import Path

import pytest
from small_training import prepared


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Callable[[Path], str]) -> Path:
    """A folder with a prepared dataset, anchors and MLflow's database."""
    folder = tmp_path_factory.mktemp("train")
    mlflow_database(folder)
    return prepared(folder)


@pytest.fixture
def tracking(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's database of the folder."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project / 'mlflow.db'}")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
