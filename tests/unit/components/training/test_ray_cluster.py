"""What `connected` says when there is no cluster, or none can be started; the cluster itself is in the slow tests."""

import socket
import time
from functools import cache
from pathlib import Path

import pytest
from ray._private import services

from components.doctor.machine import check_ray
from components.training import ray_cluster
from yolo_core.errors import TryAgain, UserError


def connect() -> None:
    with ray_cluster.connected(1, show_workers=False):
        pass


@pytest.fixture
def dead_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.mark.parametrize("address", ["127.0.0.1:{}", "ray://127.0.0.1:{}", "localhost:{}", "auto"])
def test_a_cluster_that_is_down_is_told_within_seconds(address: str, dead_port: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ray_cluster, "PATIENCE_S", 0.2)
    # "auto" would find the clusters of other processes.
    monkeypatch.setattr(services, "find_gcs_addresses", cache(set))
    monkeypatch.setattr(services, "find_bootstrap_address", lambda _folder: None)
    address = address.format(dead_port)
    monkeypatch.setenv("RAY_ADDRESS", address)
    began = time.monotonic()
    with pytest.raises(TryAgain) as raised:
        connect()
    assert str(raised.value) == (
        f"RAY_ADDRESS: no Ray cluster at {address}; start it (`ray start --head`) or unset RAY_ADDRESS"
    )
    assert time.monotonic() - began < 20  # with the import of Ray


@pytest.mark.parametrize("address", ["127.0.0.1", "head", "http://127.0.0.1:8265", "127.0.0.1:port", "ray://head"])
def test_what_is_no_address_is_refused(address: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(UserError, match=r"expected HOST:PORT, ray://HOST:PORT or auto$") as raised:
        connect()
    assert not isinstance(raised.value, TryAgain)


def test_doctor_says_the_same(dead_port: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ray_cluster, "PATIENCE_S", 0.2)
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{dead_port}")
    finding = check_ray()
    assert not finding.ok
    assert f"{finding.message}; {finding.fix}" == (
        f"cluster at 127.0.0.1:{dead_port}; start it (`ray start --head`) or unset RAY_ADDRESS"
    )


def test_a_folder_too_deep_for_sockets_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    deep = tmp_path / ("a" * 60) / ("b" * 60)
    deep.mkdir(parents=True)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(deep))
    with pytest.raises(UserError, match=r"exceed 107 bytes; set RAY_TMPDIR to a shorter folder$"):
        connect()
