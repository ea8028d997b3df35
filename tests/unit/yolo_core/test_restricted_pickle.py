"""Reading `.pt` files: tensors are read, code is not."""

import os
import pickle
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from yolo_core.errors import UserError
from yolo_core.models.restricted_pickle import batch_norm_eps, read, tensors


class Layered(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, bias=False)
        self.inner = nn.Sequential(nn.BatchNorm2d(4, eps=1e-3), nn.LeakyReLU(0.1))
        self.names = ["cat", "dog"]


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """A module pickled under the name of the authors' code, which is missing when the file is read."""
    package, module = types.ModuleType("models"), types.ModuleType("models.yolo")
    monkeypatch.setitem(sys.modules, "models", package)
    monkeypatch.setitem(sys.modules, "models.yolo", module)
    monkeypatch.setattr(Layered, "__module__", "models.yolo")
    module.Layered = Layered  # pyright: ignore[reportAttributeAccessIssue]
    return Layered()


def test_a_whole_module_is_read_without_its_code(model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    content = {"model": model.half(), "ema": None, "epoch": -1, "best_fitness": np.array([0.5]), "at": np.float64(2)}
    torch.save(content, tmp_path / "a.pt")
    monkeypatch.delitem(sys.modules, "models")
    monkeypatch.delitem(sys.modules, "models.yolo")
    found = read(tmp_path / "a.pt")
    assert found["epoch"] == -1
    expected = model.state_dict()
    got = tensors(found["model"])
    assert list(got) == list(expected)
    assert all(torch.equal(got[name], expected[name]) for name in expected)
    assert batch_norm_eps(found["model"]) == {"inner.0": 1e-3}


def test_a_state_dict_is_read(tmp_path: Path):
    content = {
        "a": torch.arange(6.0).view(2, 3).t(),
        "b": torch.tensor(3),
        "c": torch.zeros(0),
        "d": torch.ones(2).bool(),
    }
    torch.save(content, tmp_path / "a.pt")
    got = tensors(read(tmp_path / "a.pt"))
    assert all(torch.equal(got[name], content[name]) for name in content)


class Evil:
    def __init__(self, *call: object) -> None:
        self.call = call

    def __reduce__(self):
        return self.call[0], self.call[1:]


@pytest.mark.parametrize(
    ("call", "name"),
    [
        ((os.system, "touch evil"), "posix.system"),
        ((eval, "open('evil', 'w')"), "__builtin__.eval"),
        ((getattr, "a", "upper"), "__builtin__.getattr"),
        ((torch.load, "evil"), "torch.serialization.load"),
        ((nn.Module.__getattr__, "a", "b"), "__builtin__.getattr"),
    ],
)
def test_any_other_name_is_refused_and_not_run(call, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Evil(*call)}, "a.pt")
    with pytest.raises(UserError, match=f"a.pt: refused, it names {name}, which"):
        read(Path("a.pt"))
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def rewritten(source: Path, target: Path, change, compression=zipfile.ZIP_STORED) -> Path:
    """A copy of a zip archive with every entry's bytes passed through `change(name, data)`."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return target


def test_damaged_or_unusual_files_are_one_line(tmp_path: Path):
    path = tmp_path / "a.pt"
    torch.save({"a": torch.arange(600.0)}, path)
    whole = path.read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[:-50])
    (tmp_path / "legacy.pt").write_bytes(pickle.dumps({"a": 1}))
    rewritten(path, tmp_path / "packed.pt", lambda _, data: data, zipfile.ZIP_DEFLATED)
    rewritten(path, tmp_path / "short.pt", lambda name, data: data[:-4] if "/data/" in name else data)
    rewritten(path, tmp_path / "garbled.pt", lambda name, data: data[:-9] if name.endswith("data.pkl") else data)
    with zipfile.ZipFile(tmp_path / "other.pt", "w") as other:
        other.writestr("hello", "world")
    for name, message in {
        "none.pt": "no such file",
        "cut.pt": "not a PyTorch file of version 1.6 or later",
        "legacy.pt": "not a PyTorch file of version 1.6 or later",
        "packed.pt": "is compressed",
        "short.pt": "damaged",
        "garbled.pt": "damaged",
        "other.pt": "no data.pkl",
    }.items():
        with pytest.raises(UserError, match=message) as caught:
            read(tmp_path / name)
        assert "\n" not in str(caught.value), name


def test_a_tensor_may_not_reach_outside_its_storage(tmp_path: Path):
    """Viewing one number as a million costs the file nothing, but the reader memory."""
    torch.save({"a": torch.zeros(1).expand(1_000_000)}, tmp_path / "a.pt")
    with pytest.raises(UserError, match=r"a tensor of shape \(1000000,\) in a storage of 1 "):
        read(tmp_path / "a.pt")
