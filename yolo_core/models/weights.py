"""A detector in one file: weights as safetensors, and everything needed to rebuild it as JSON in the header.

Loading runs no code from the file.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from yolo_core import tensor_file
from yolo_core.atomic import replaced
from yolo_core.errors import UserError
from yolo_core.models.detector import Detector
from yolo_core.models.spec import Anchors, BoxCoding
from yolo_core.models.zoo import build_model

_KEY = "detector"  # in the header's metadata


class _Header(TypedDict):
    """What the header of a file says about the detector."""

    model: str
    """Name of the model."""

    width: float
    """Multiple of its channels."""

    depth: float
    """Multiple of its layers."""

    num_classes: int
    """K."""

    classes: list[str]
    """K names, by index."""

    anchors: Anchors
    """(L, A, 2): w and h in px at `size`; nested lists in the file."""

    size: int
    """Training input size, px."""

    coding: dict[str, Any]
    """The fields of `BoxCoding`."""

    extra: dict[str, object]
    """As passed to `save_detector`."""


@dataclass(frozen=True)
class LoadedDetector:
    """A detector read from a file.

    model: in evaluation mode; classes: names by index; size: training input size in pixels; extra: as passed to
    `save_detector`.
    """

    model: Detector
    classes: list[str]
    size: int
    extra: dict[str, object] = field(default_factory=dict)


def save_detector(
    path: Path, model: Detector, *, classes: list[str], size: int, extra: dict[str, object] | None = None
) -> None:
    """Write `model` (not a fused copy) to a single safetensors file, atomically.

    classes: K names; size: input size of the anchors, in pixels; extra: additional JSON values.
    Raises ValueError for a fused copy, or if the number of class names is wrong.
    """
    if model.fold_error is not None:
        raise ValueError("a fused copy cannot be saved; save the model it was made from")
    if len(classes) != model.num_classes:
        raise ValueError(f"{len(classes)} class names for a model of {model.num_classes} classes")
    header = {
        "model": model.spec.name,
        "width": model.width,
        "depth": model.depth,
        "num_classes": model.num_classes,
        "classes": list(classes),
        "anchors": model.anchors.tolist(),
        "size": size,
        "coding": asdict(model.spec.coding),
        "extra": extra or {},
    }
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    with replaced(Path(path)) as temporary:
        tensor_file.write(tensors, temporary, metadata={_KEY: json.dumps(header)})


def read_classes(path: Path) -> list[str]:
    """The class names of a file written by `save_detector`, from its header. Raises UserError as `load_detector`."""
    with _opened(Path(path)) as file:
        return _classes(_header(file, path), path)


def load_detector(path: Path, device: torch.device | str = "cpu") -> LoadedDetector:
    """Read a file written by `save_detector`.

    Raises UserError, naming the file, when it is missing, damaged or not a detector, or when its tensors do not match
    the model it names.
    """
    header, tensors = _read(Path(path))
    classes = _classes(header, path)
    try:
        with torch.device("meta"):
            model = build_model(
                header["model"],
                header["num_classes"],
                header["width"],
                header["depth"],
                header["anchors"],
                coding=BoxCoding(**header["coding"]),
            )
        anchors = torch.tensor(header["anchors"], dtype=torch.float32)
        size, extra = int(header["size"]), dict(header["extra"])
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise _not_a_detector(path, f"its header is wrong: {error!r}") from None
    if len(classes) != model.num_classes:
        raise _not_a_detector(path, f"its header names {len(classes)} of {model.num_classes} classes")
    _fill(model, tensors, anchors, path)
    return LoadedDetector(model.to(device).eval(), classes, size, extra)


def _read(path: Path) -> tuple[_Header, dict[str, Tensor]]:
    with _opened(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        return _header(file, path), tensors


@contextmanager
def _opened(path: Path) -> Iterator[safe_open]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; train a model or give the path of its model.safetensors") from None
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: not a readable safetensors file, damaged or cut short ({error})") from None


def _header(file: safe_open, path: Path) -> _Header:
    """The header; nothing but that it is a JSON object has been checked."""
    text = (file.metadata() or {}).get(_KEY)
    try:
        header: _Header | None = json.loads(text) if text else None
    except (ValueError, RecursionError):
        raise _not_a_detector(path, "its header is not JSON") from None
    if not isinstance(header, dict):
        raise _not_a_detector(path, "its header has no detector")
    return header


def _classes(header: _Header, path: Path) -> list[str]:
    try:
        return [str(name) for name in header["classes"]]
    except (KeyError, TypeError) as error:
        raise _not_a_detector(path, f"its header is wrong: {error!r}") from None


def _fill(model: Detector, tensors: dict[str, Tensor], anchors: Tensor, path: Path) -> None:
    """Assign the file's tensors to the model, which is on the meta device, after checking names, shapes and types."""
    wanted = model.state_dict()
    for name in sorted(wanted.keys() ^ tensors.keys()):
        state = "is missing" if name in wanted else "is not part of it"
        raise UserError(f"{path}: does not hold a {model.spec.name}: tensor {name} {state}")
    for name, value in wanted.items():
        found = tensors[name]
        if found.shape != value.shape or found.is_floating_point() != value.is_floating_point():
            raise UserError(
                f"{path}: does not hold this {model.spec.name}: tensor {name} is {found.dtype} {tuple(found.shape)}, "
                f"expected {value.dtype} {tuple(value.shape)}"
            )
    model.load_state_dict(tensors, assign=True)
    model.anchors = anchors


def _not_a_detector(path: Path, why: str) -> UserError:
    return UserError(f"{path}: not a detector file ({why}); give a model.safetensors written by training")
