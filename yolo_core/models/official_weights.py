"""Loads the authors' published weights, Darknet `.weights` and PyTorch `.pt`, into our models.

Every tensor is matched by name and shape. No code from the file is run.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from yolo_core.errors import UserError
from yolo_core.models import darknet_weights, official_names_v4, official_names_v7, restricted_pickle
from yolo_core.models.blocks import BN_EPS
from yolo_core.models.detector import Detector
from yolo_core.models.rep import Implicit, RepConv
from yolo_core.models.spec import DARKNET_CODING

DARKNET_ORDER = {**official_names_v4.DARKNET_ORDER, **official_names_v7.DARKNET_ORDER}
PYTORCH_NAMES = {**official_names_v4.PYTORCH_NAMES, **official_names_v7.PYTORCH_NAMES}

# Darknet trained these with a box coding that the authors' PyTorch branches do not use.
_DARKNET_CODED = ("yolov4-tiny", "yolov4-tiny-3l")
# Tensors that inference files lack: implicit knowledge and RepConv's 1x1 branch are folded, auxiliary heads dropped.
# Batch counters only matter for training.
_TRAINING_ONLY = re.compile(r"\.implicit$|auxiliary|\.pointwise\.|num_batches_tracked$")
Entry = TypeVar("Entry", bound=Callable)
_INDEX = re.compile(r"model\.(\d{1,4})\.")


@dataclass(frozen=True)
class ImportReport:
    """matched: our tensors that were loaded; absent: optional ones that the file lacks, now neutral or freshly
    initialised; unused: tensors of the file with no counterpart here; anchors: whether the file has its own."""

    matched: list[str]
    absent: list[str]
    unused: list[str]
    anchors: bool


def load_official(model: Detector, path: Path) -> ImportReport:
    """Load the authors' file into `model`, in place: Darknet format if its suffix is `.weights`, otherwise PyTorch.

    A Darknet file of yolov4-tiny also switches the model to Darknet's box coding.
    Raises UserError when the file is missing or damaged, refers to anything but tensors and layers, or is of another
    model.
    """
    path = Path(path)
    return _load_darknet(model, path) if path.suffix == ".weights" else _load_pytorch(model, path)


def _load_darknet(model: Detector, path: Path) -> ImportReport:
    layers = _known(DARKNET_ORDER, "Darknet weights", model, path)(model)
    found = darknet_weights.read(path, [(layer, model.get_submodule(layer)) for layer in layers])
    if model.spec.family == "yolov7":
        for layer, order in official_names_v7.darknet_input_order(model).items():
            found[f"{layer}.conv.weight"] = found[f"{layer}.conv.weight"][:, order]
    if model.spec.name in _DARKNET_CODED:
        model.spec = replace(model.spec, coding=DARKNET_CODING)
    eps = {name.removesuffix(".weight"): darknet_weights.EPS for name in found if name.endswith(".bn.weight")}
    return _fill(model, path, found, eps, unused=[])


def _load_pytorch(model: Detector, path: Path) -> ImportReport:
    tree = restricted_pickle.read(path)
    if isinstance(tree, dict) and "model" in tree:
        tree = tree["model"] if tree.get("ema") is None else tree["ema"]
    if not isinstance(tree, dict | restricted_pickle.Record):
        raise UserError(f"{path}: holds neither a model nor its tensors")
    theirs, eps = restricted_pickle.tensors(tree), restricted_pickle.batch_norm_eps(tree)
    names = _names(model, theirs, path)
    ours = {key: theirs[name] for key, name in names.items() if name in theirs}
    used = {names[key] for key in ours}
    default = official_names_v4.MODULE_LIST_BN_EPS if any(name.startswith("module_list.") for name in used) else BN_EPS
    trained_with = {
        key.removesuffix(".running_var"): eps.get(names[key].removesuffix(".running_var"), default)
        for key in ours
        if key.endswith(".running_var")
    }
    unused = [name for name in theirs if name not in used]
    return _fill(model, path, ours, trained_with, unused, _anchors(model, theirs))


def _known(table: Mapping[str, Entry], kind: str, model: Detector, path: Path) -> Entry:
    """The table's entry for this model; otherwise UserError, listing the models of the family that have one."""
    name = model.spec.name
    if name not in table:
        near = [other for other in table if other.startswith(name)] or list(table)
        raise UserError(f"{path}: no {kind} of {name} exist; they exist for {', '.join(near)}")
    return table[name]


def _names(model: Detector, theirs: Mapping[str, Tensor], path: Path) -> dict[str, str]:
    """Our tensor names -> the file's. In files without auxiliary heads, the head has a smaller index."""
    names = _known(PYTORCH_NAMES, "PyTorch weights", model, path)(model)
    head, last = _last_index(names.values()), _last_index(theirs)
    if last is None or head is None or last >= head:
        return names
    old, new = f"model.{head}.", f"model.{last}."
    return {key: name.replace(old, new, 1) if name.startswith(old) else name for key, name in names.items()}


def _last_index(names: Iterable[str]) -> int | None:
    return max((int(found[1]) for name in names if (found := _INDEX.match(name))), default=None)


def _with_our_eps(found: Mapping[str, Tensor], eps: Mapping[str, float]) -> dict[str, Tensor]:
    """The tensors in float32, normalisation weights rescaled so that our epsilon gives the same outputs as theirs."""
    tensors = {name: value.float() if value.is_floating_point() else value for name, value in found.items()}
    for layer, value in eps.items():
        if value != BN_EPS and f"{layer}.weight" in tensors:
            variance = tensors[f"{layer}.running_var"].double()
            scale = ((variance + BN_EPS) / (variance + value)).sqrt()
            tensors[f"{layer}.weight"] = (tensors[f"{layer}.weight"] * scale).float()
    return tensors


def _anchors(model: Detector, theirs: Mapping[str, Tensor]) -> Tensor | None:
    """The anchors, in pixels, of the file's detection layer; None if it has none, or a different number of them."""
    held = (value for name, value in theirs.items() if name.endswith(".anchor_grid"))
    fitting = [value for value in held if value.numel() == model.anchors.numel()]
    return fitting[0].float().reshape(model.anchors.shape) if fitting else None


@torch.no_grad()
def _fill(
    model: Detector,
    path: Path,
    found: Mapping[str, Tensor],
    eps: Mapping[str, float],
    unused: list[str],
    anchors: Tensor | None = None,
) -> ImportReport:
    """Copy the tensors, which were trained with `eps`, after checking that none is missing and all shapes match."""
    own = model.state_dict()
    absent = [name for name in own if name not in found]
    if missing := next((name for name in absent if not _TRAINING_ONLY.search(name)), None):
        raise UserError(f"{path}: does not hold {model.spec.name}: it has no tensor for {missing}")
    for name, value in found.items():
        if value.shape != own[name].shape:
            raise UserError(
                f"{path}: does not hold this {model.spec.name}: {name} is {tuple(value.shape)} there, "
                f"{tuple(own[name].shape)} here; check the number of classes"
            )
    for name, value in _with_our_eps(found, eps).items():
        own[name].copy_(value)
    _neutralise(model, set(absent))
    if anchors is not None:
        model.anchors.copy_(anchors)
    return ImportReport(list(found), absent, unused, anchors is not None)


def _neutralise(model: Detector, absent: set[str]) -> None:
    """Neutralise the modules that are already folded in the file."""
    for name, module in model.named_modules():
        if isinstance(module, Implicit) and f"{name}.implicit" in absent:
            module.reset_to_neutral()
        if isinstance(module, RepConv) and f"{name}.pointwise.conv.weight" in absent:
            module.silence_pointwise()
