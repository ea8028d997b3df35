"""Reads the tensors of a PyTorch `.pt` file without running any code that the file names.

Such a file is a zip archive with a pickle and one entry per storage. The authors' files pickle whole modules, so the
usual way of loading them imports and runs whatever code they name. Here every name is checked against an allowlist:
tensors and plain containers are rebuilt by functions of this module, layers become inert records, and a file with any
other name is refused.
"""

import math
import pickle
import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from yolo_core.errors import UserError
from yolo_core.models.pickle_machine import Builder, PickleMachine, Record

__all__ = ["Record", "batch_norm_eps", "read", "tensors"]

_DTYPES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
# Layers and numbers allowed in a checkpoint next to tensors: kept as data and only searched for tensors.
_INERT = re.compile(
    r"torch\.nn\.modules\.[a-z]+\.\w+|torch\.nn\.parallel\.distributed\.\w+|models\.(yolo|common|experimental|models)\.\w+"
    r"|numpy(\._?core)?\.(multiarray\.(scalar|_reconstruct)|ndarray|dtype)|torch\.(device|dtype)|_codecs\.encode"
)

MAX_DEPTH = 30  # of nested layers
MAX_DIMENSIONS = 8
ROOM = 3  # bytes of tensors allowed per byte of the file: for storages, and tensors copied from them


@dataclass(frozen=True)
class _Storage:
    dtype: torch.dtype
    key: str
    count: int


def read(path: Path) -> object:
    """The content of a `.pt` file: containers, numbers, tensors and `Record`s.

    Raises UserError when the file is missing or damaged, or names anything not on the allowlist.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _Reader(path, archive).load()
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except zipfile.BadZipFile:
        raise UserError(
            f"{path}: not a PyTorch file of version 1.6 or later; save an older one again in a newer PyTorch"
        ) from None
    except Exception as error:  # a malformed pickle can raise anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{path}: damaged ({reason[:200]})") from None


def tensors(tree: object) -> dict[str, Tensor]:
    """The state dict of what was read: a dict of tensors, or a layer, with dotted names for nested layers."""
    return {name: value for name, value in _walk(tree, "", set()) if isinstance(value, Tensor)}


def batch_norm_eps(tree: object) -> dict[str, float]:
    """Dotted layer name -> `eps`, for layers that have one; empty for a plain dict of tensors."""
    values = ((name, value) for name, value in _walk(tree, "", set()) if isinstance(value, float))
    return {name.removesuffix(".eps"): value for name, value in values if name.endswith(".eps")}


def _walk(tree: object, prefix: str, seen: set[int]) -> Iterator[tuple[str, object]]:
    """Names and values. A layer that occurs more than once, possibly inside itself, counts at its first occurrence."""
    if not isinstance(tree, Record):
        yield from ((str(name), value) for name, value in _mapping(tree).items())
        return
    seen.add(id(tree))
    for group in ("_parameters", "_buffers"):
        yield from ((f"{prefix}{name}", value) for name, value in _mapping(tree.fields.get(group)).items())
    if isinstance(tree.fields.get("eps"), float):
        yield f"{prefix}eps", tree.fields["eps"]
    for name, child in _mapping(tree.fields.get("_modules")).items():
        if isinstance(child, Record) and id(child) not in seen and prefix.count(".") < MAX_DEPTH:
            yield from _walk(child, f"{prefix}{name}.", seen)


def _mapping(value: object) -> dict:
    return value if isinstance(value, dict) else {}


class _Reader(PickleMachine):
    def __init__(self, path: Path, archive: zipfile.ZipFile):
        names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(names) != 1:
            raise UserError(f"{path}: not a PyTorch file (no data.pkl in it)")
        self.path = path
        self.archive = archive
        self.pickle = names[0]
        self.folder = names[0].removesuffix("data.pkl")
        self.storages: dict[str, Tensor] = {}
        self.file_bytes = path.stat().st_size
        self.room = ROOM * self.file_bytes

    def load(self) -> object:
        return self.run(self._content(self.pickle))

    def find(self, module: str, name: str) -> object:
        full = f"{module}.{name}"
        if full == "torch._utils._rebuild_tensor_v2":
            return Builder(self._tensor)
        if full in _REBUILD:
            return _REBUILD[full]
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if _INERT.fullmatch(full):
            return _RECORD
        raise UserError(f"{self.path}: refused, it names {full[:100]}, which a weights file does not need")

    def persistent(self, pid: Any) -> _Storage:
        kind, dtype, key, _, count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype) or not re.fullmatch(r"\w+", key):
            raise pickle.UnpicklingError("unknown kind of storage")
        return _Storage(dtype, key, count)

    def _tensor(self, storage: _Storage, offset: int, size: Sequence[int], stride: Sequence[int], *_: object) -> Tensor:
        """A copy of part of a storage; reaching outside the storage is an error."""
        if len(size) > MAX_DIMENSIONS or math.prod(size) > storage.count:
            raise pickle.UnpicklingError(
                f"a tensor of shape {tuple(size[:MAX_DIMENSIONS])} in a storage of {storage.count} elements"
            )
        view = self._storage(storage).as_strided(size, stride, offset)
        self._spend(view.nbytes)
        return view.clone()

    def _storage(self, storage: _Storage) -> Tensor:
        if storage.key not in self.storages:
            data = bytearray(self._content(f"{self.folder}data/{storage.key}"))
            if len(data) != storage.count * storage.dtype.itemsize:
                raise pickle.UnpicklingError(f"storage {storage.key[:20]} has {len(data)} bytes")
            self._spend(len(data))
            empty = torch.empty(0, dtype=storage.dtype)
            self.storages[storage.key] = torch.frombuffer(data, dtype=storage.dtype) if data else empty
        return self.storages[storage.key]

    def _spend(self, count: int) -> None:
        """Limit total memory: a file can refer to the same storage any number of times, each as a new tensor."""
        self.room -= count
        if self.room < 0:
            raise pickle.UnpicklingError("tensors take several times the file's size")

    def _content(self, name: str) -> bytes:
        """The bytes of an entry. PyTorch never compresses; a compressed entry could be a zip bomb, so it is refused."""
        info = self.archive.getinfo(name)
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > self.file_bytes:
            raise UserError(f"{self.path}: refused, its entry {name[:100]!r} is compressed")
        return self.archive.read(info)


def _empty_dict() -> dict:
    return {}


def _size(items: tuple) -> tuple:
    return items


def _set(items: list) -> list:
    return items


def _parameter(data: Tensor, *_: object) -> Tensor:
    return data


def _record(*_: object) -> Record:
    return Record()


_RECORD = Builder(_record)
_REBUILD = {
    "collections.OrderedDict": Builder(_empty_dict),
    "builtins.set": Builder(_set),
    "__builtin__.set": Builder(_set),
    "torch.Size": Builder(_size),
    "torch._utils._rebuild_parameter": Builder(_parameter),
}
