"""A prefix in a real S3 store (SeaweedFS) on loopback, and a proxy that disturbs transfers to it."""

from collections.abc import Iterator

import pytest
from faulty_proxy import FaultyProxy

from components.storage import attempts
from components.storage import client as storage_client
from components.storage.location import Location


@pytest.fixture
def remote(store, request: pytest.FixtureRequest) -> Location:
    """A prefix of the test's own."""
    return Location(store.bucket, f"tests/{request.node.name.replace('[', '-').replace(']', '')}")


@pytest.fixture
def proxy(store, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """The store is reached through it; retries follow quickly."""
    monkeypatch.setattr(attempts, "BACKOFF_S", 0.01)
    monkeypatch.setattr(storage_client, "ATTEMPTS", 3)
    with FaultyProxy(store.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield proxy
