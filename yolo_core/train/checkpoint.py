"""Checkpoints: a folder of tensors (safetensors), state (JSON) and their checksums. Nothing is pickled.

A checkpoint is written aside, flushed and renamed, so a folder named step-NNNNNNNN is whole. Its SHA256SUMS
(`sha256sum -c SHA256SUMS`) show later damage by the disk; the checkpoint before it is used then.
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, TypedDict, cast

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from yolo_core import atomic, tensor_file
from yolo_core.errors import UserError

TENSORS, STATE, SUMS = "tensors.safetensors", "state.json", "SHA256SUMS"
FORMAT = 1
DIFFERENCES_SHOWN = 10


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read."""

    tensors: dict[str, dict[str, Tensor]]
    """Tensors by group ("model", "ema", ...) and name."""
    state: dict[str, object]
    """As it was given to `save`, with "step" and the parameters."""


class RandomState(TypedDict):
    """The state of every global random generator of a process, as JSON can hold it; tensors of bytes as base64."""

    python: tuple[int, list[int], float | None]
    numpy: _NumpyState
    torch: str
    cuda: NotRequired[str]


class _NumpyState(TypedDict):
    bit_generator: str
    state: _MersenneTwister
    has_gauss: int
    gauss: float


class _MersenneTwister(TypedDict):
    key: list[int]
    pos: int


class Damaged(Exception):
    """A checkpoint whose content is not what was written."""


def save(
    folder: Path,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, object],
    parameters: Mapping[str, object],
    keep: int = 2,
) -> Path:
    """Write folder/step-NNNNNNNN, then remove all but the newest `keep`; returns its path.

    tensors: by group and name. state: anything JSON can hold. parameters: what determines the result; `load` refuses
    a checkpoint made with others.
    """
    path = folder / f"step-{step:08d}"
    if path.exists():
        shutil.rmtree(path)
    flat = {f"{group}.{name}": t.contiguous() for group, items in tensors.items() for name, t in items.items()}
    record = {"format": FORMAT, "step": step, "parameters_sha256": digest(parameters), "parameters": parameters}
    with atomic.replaced_folder(path) as aside:
        tensor_file.write(flat, aside / TENSORS)
        (aside / STATE).write_text(json.dumps({**record, **state}, indent=1) + "\n", encoding="utf-8")
        sums = "".join(f"{_sha256(aside / name)}  {name}\n" for name in (TENSORS, STATE))
        (aside / SUMS).write_text(sums, encoding="utf-8")
    for old in found(folder)[keep:]:
        shutil.rmtree(old)
    return path


def found(folder: Path) -> list[Path]:
    """The checkpoints in a folder, newest first."""
    return sorted(folder.glob("step-????????"), reverse=True)


def newest(folder: Path, warn: Callable[[str], None]) -> Path | None:
    """The newest intact checkpoint, None without one.

    A damaged one is renamed to damaged-..., and `warn` gets a line about it.
    """
    for path in found(folder):
        try:
            verify(path)
        except Damaged as damage:
            aside = path.with_name(f"damaged-{path.name}")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
            warn(f"checkpoint {path} is damaged ({damage}); resuming from the one before it")
        else:
            return path
    return None


def verify(path: Path) -> None:
    """Raise Damaged unless both files are there with the checksums they were written with."""
    try:
        lines = (path / SUMS).read_text(encoding="utf-8").splitlines()
        wanted = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
        for name in (TENSORS, STATE):
            if _sha256(path / name) != wanted.get(name):
                raise Damaged(f"{name} does not match its checksum")
    except (OSError, UnicodeDecodeError) as error:
        raise Damaged(str(error)) from None


def load(path: Path, parameters: Mapping[str, object]) -> Checkpoint:
    """Read a verified checkpoint.

    Raises UserError with the difference when it was made with other parameters, and when it is not a checkpoint.
    """
    try:
        state = json.loads((path / STATE).read_text(encoding="utf-8"))
        if state.get("format") != FORMAT:
            raise UserError(
                f"{path}: checkpoint format {_short(state.get('format'))}, this version reads {FORMAT}; remove it"
            )
        if state["parameters_sha256"] != digest(parameters):
            difference = "; ".join(differences(state["parameters"], _plain(parameters))[:DIFFERENCES_SHOWN])
            raise UserError(f"{path}: made with other parameters: {difference}; restore them or remove the folder")
        flat = safetensors.torch.load_file(path / TENSORS)
    except (OSError, ValueError, KeyError, AttributeError, RecursionError, SafetensorError) as error:
        raise UserError(f"{path}: not a checkpoint ({_first_line(error)}); remove it to start again") from None
    tensors: dict[str, dict[str, Tensor]] = {}
    for name, tensor in flat.items():
        group, _, rest = name.partition(".")
        tensors.setdefault(group, {})[rest] = tensor
    return Checkpoint(tensors, state)


def differences(there: object, here: object, key: str = "") -> list[str]:
    """'key: value there, other value here' for every leaf in which two JSON values differ."""
    if not (isinstance(there, dict) and isinstance(here, dict)):
        return [] if there == here else [f"{key}: {_short(there)} there, {_short(here)} here"]
    keys = [*there, *(k for k in here if k not in there)]
    return [
        line
        for k in keys
        for line in differences(there.get(k, "nothing"), here.get(k, "nothing"), f"{key}.{k}" if key else k)
    ]


def digest(parameters: Mapping[str, object]) -> str:
    """SHA-256 (hex) of parameters as canonical JSON."""
    return hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()


def random_state() -> RandomState:
    """The random state of this process."""
    version, words, gauss = random.getstate()
    generator = cast(_NumpyState, np.random.get_state(legacy=False))  # noqa: NPY002 - the global one is what is saved
    key = np.asarray(generator["state"]["key"]).tolist()
    state: RandomState = {
        "python": (version, list(words), gauss),
        "numpy": {**generator, "state": {**generator["state"], "key": key}},
        "torch": _encode(torch.get_rng_state()),
    }
    if torch.cuda.is_available():
        state["cuda"] = _encode(torch.cuda.get_rng_state())
    return state


def set_random_state(state: RandomState) -> None:
    """Restore what `random_state` returned."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    inner = state["numpy"]["state"]
    key = np.array(inner["key"], dtype=np.uint32)
    np.random.set_state({**state["numpy"], "state": {**inner, "key": key}})  # noqa: NPY002
    torch.set_rng_state(_decode(state["torch"]))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(_decode(state["cuda"]))


def _encode(tensor: Tensor) -> str:
    return base64.b64encode(tensor.numpy().tobytes()).decode("ascii")


def _decode(text: str) -> Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _plain(parameters: Mapping[str, object]) -> dict[str, object]:
    """As they read back from JSON: tuples have become lists."""
    return json.loads(json.dumps(parameters))


def _first_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
