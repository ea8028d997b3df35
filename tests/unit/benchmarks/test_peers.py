"""What is between the benchmarks and the peers' code: fetching it, and what their code needs from PyTorch."""

import subprocess
from pathlib import Path

import pytest
import torch

from benchmarks.peers import fetch, train_step


def test_ranges_without_a_device_are_made_on_the_given_one():
    with train_step.ranges_on(torch.device("meta")):
        assert torch.arange(3).device.type == "meta"
        assert torch.arange(1, 3, dtype=torch.float64).dtype == torch.float64
        assert torch.arange(3, device="cpu").tolist() == [0, 1, 2]
    assert torch.arange(3).tolist() == [0, 1, 2]


@pytest.fixture
def repository(tmp_path: Path) -> tuple[str, str]:
    """A repository with one file, and its commit."""
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "model.py").write_text("layers = 3\n")
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    for command in (("init", "-q"), ("add", "."), (*identity, "commit", "-qm", "one")):
        subprocess.run(("git", *command), cwd=folder, check=True)
    commit = subprocess.run(("git", "rev-parse", "HEAD"), cwd=folder, check=True, capture_output=True, text=True)
    return folder.as_uri(), commit.stdout.strip()


def test_a_checkout_appears_once_it_is_complete(repository: tuple[str, str], tmp_path: Path):
    folder, (address, commit) = tmp_path / "peers" / "model", repository
    with pytest.raises(subprocess.CalledProcessError):
        fetch.checkout(address, "0" * 40, folder)
    assert not folder.exists()
    fetch.checkout(address, commit, folder)
    assert (folder / "model.py").read_text() == "layers = 3\n"
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
