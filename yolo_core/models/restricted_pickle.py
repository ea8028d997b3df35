"""The tensors of a PyTorch `.pt` file, read without running anything that the file says.

Such a file is a zip archive with a pickle and one entry per storage. The authors' files pickle whole modules, so that
loading them the usual way imports and runs code by names in the file. Here every name is looked up in a short list:
tensors and plain containers are rebuilt by functions of this module, layers become inert records, and any other name
refuses the file.
"""

import math
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from yolo_core.errors import UserError

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
# Layers and numbers that may stand in a checkpoint beside tensors: kept as data, never looked into but for tensors.
_INERT = re.compile(
    r"torch\.nn\.modules\.[a-z]+\.\w+|torch\.nn\.parallel\.distributed\.\w+|models\.(yolo|common|experimental|models)\.\w+"
    r"|numpy(\._?core)?\.(multiarray\.(scalar|_reconstruct)|ndarray|dtype)|torch\.(device|dtype)|_codecs\.encode"
)


MAX_DEPTH = 30  # of layers within layers; a file may hold one that contains itself


class Record:
    """Something of the file that is kept as data: a layer, or a number of a library's own type."""

    def __new__(cls, *_: Any, **__: Any) -> "Record":
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        self.fields: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        self.fields = state if isinstance(state, dict) else {}


@dataclass(frozen=True)
class _Storage:
    dtype: torch.dtype
    key: str
    count: int


def read(path: Path) -> Any:
    """The content of a `.pt` file: containers, numbers, tensors and `Record`s.

    Raises UserError when the file is missing, damaged, or names anything outside the list.
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
            f"{path}: not a PyTorch file of version 1.6 or later; one of an older version must be saved again"
        ) from None
    except Exception as error:  # a pickle can fail in any way that its bytes choose
        raise UserError(f"{path}: damaged ({type(error).__name__}: {error})") from None


def tensors(tree: Any) -> dict[str, Tensor]:
    """The state dict of what was read: of a dict of tensors, or of a layer with its inner layers by dotted names."""
    return {name: value for name, value in _walk(tree, "") if isinstance(value, Tensor)}


def batch_norm_eps(tree: Any) -> dict[str, float]:
    """Dotted name of each layer that has an `eps` -> its value; empty for a plain dict of tensors."""
    values = _walk(tree, "")
    return {name.removesuffix(".eps"): value for name, value in values if name.endswith(".eps")}


def _walk(tree: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(tree, Record):
        yield from ((str(name), value) for name, value in tree.items())
        return
    fields = tree.fields
    for group in ("_parameters", "_buffers"):
        yield from ((f"{prefix}{name}", value) for name, value in _mapping(fields.get(group)).items())
    if isinstance(fields.get("eps"), float):
        yield f"{prefix}eps", fields["eps"]
    for name, child in _mapping(fields.get("_modules")).items():
        if isinstance(child, Record) and prefix.count(".") < MAX_DEPTH:
            yield from _walk(child, f"{prefix}{name}.")


def _mapping(value: Any) -> dict:
    return value if isinstance(value, dict) else {}


class _Reader(pickle.Unpickler):
    def __init__(self, path: Path, archive: zipfile.ZipFile):
        names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(names) != 1:
            raise UserError(f"{path}: not a PyTorch file (no data.pkl in it)")
        self.path = path
        self.archive = archive
        self.folder = names[0].removesuffix("data.pkl")
        self.storages: dict[str, Tensor] = {}
        super().__init__(self._open(names[0]))

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full == "torch._utils._rebuild_tensor_v2":
            return self._tensor
        if full in _REBUILD:
            return _REBUILD[full]
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if _INERT.fullmatch(full):
            return Record
        raise UserError(f"{self.path}: refused, it names {full}, which a file of weights has no use for")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype) or not re.fullmatch(r"\w+", key):
            raise pickle.UnpicklingError("unknown kind of storage")
        return _Storage(dtype, key, count)

    def _tensor(self, storage: _Storage, offset: int, size: Sequence[int], stride: Sequence[int], *_: Any) -> Tensor:
        """A tensor with memory of its own; one that reaches outside its storage is an error."""
        if math.prod(size) > storage.count:
            raise pickle.UnpicklingError(f"a tensor of {tuple(size)} in a storage of {storage.count}")
        return self._storage(storage).as_strided(size, stride, offset).clone()

    def _storage(self, storage: _Storage) -> Tensor:
        if storage.key not in self.storages:
            with self._open(f"{self.folder}data/{storage.key}") as entry:
                data = bytearray(entry.read())
            if len(data) != storage.count * storage.dtype.itemsize:
                raise pickle.UnpicklingError(f"storage {storage.key} has {len(data)} bytes")
            empty = torch.empty(0, dtype=storage.dtype)
            self.storages[storage.key] = torch.frombuffer(data, dtype=storage.dtype) if data else empty
        return self.storages[storage.key]

    def _open(self, name: str) -> Any:
        """An entry, which PyTorch never compresses: one that is could unpack to anything."""
        info = self.archive.getinfo(name)
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > self.path.stat().st_size:
            raise UserError(f"{self.path}: refused, its entry {name} is compressed")
        return self.archive.open(info)


def _parameter(data: Tensor, *_: Any) -> Tensor:
    return data


_REBUILD: dict[str, Any] = {
    "collections.OrderedDict": OrderedDict,
    "builtins.set": set,
    "__builtin__.set": set,
    "torch.Size": tuple,
    "torch._utils._rebuild_parameter": _parameter,
}
