"""Tensors in a file; system errors are raised as Python's own."""

import errno
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from yolo_core import tensor_file


@pytest.fixture
def room_for_1000_bytes() -> Iterator[None]:
    """Limit a file's size: beyond it the system refuses to write, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    tensor_file.write({"a": torch.arange(6).reshape(2, 3)}, tmp_path / "a.safetensors", {"of": "a test"})
    assert load_file(tmp_path / "a.safetensors")["a"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_refused_write_is_an_oserror_with_its_number(tmp_path: Path, room_for_1000_bytes: None) -> None:
    with pytest.raises(OSError, match="File too large") as raised:
        tensor_file.write({"a": torch.zeros(1000)}, tmp_path / "a.safetensors")
    assert (raised.value.errno, raised.value.filename) == (errno.EFBIG, str(tmp_path / "a.safetensors"))
