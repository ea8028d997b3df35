"""The part of torchvision that peers call, for environments without torchvision.

NMS follows torchvision's algorithm in compiled loops, so that no peer is slowed down; the rest only needs to be
importable.
"""

import importlib.metadata
import sys
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from yolo_core.compiled import compiled

COORDINATE_TRICK_UP_TO = 4000  # numbers of a box tensor on the CPU; larger ones are suppressed class by class
NAMES = {
    "torchvision": (),
    "torchvision.models": (),
    "torchvision.transforms": (),
    "torchvision.transforms.functional": (),
    "torchvision.datasets": (),
    "torchvision.utils": ("save_image",),
    "torchvision.ops": ("DeformConv2d", "roi_pool", "roi_align", "ps_roi_pool", "ps_roi_align"),
}


def install() -> None:
    """Make `import torchvision` work in this process; an installed one is kept."""
    try:
        importlib.metadata.version("torchvision")
    except importlib.metadata.PackageNotFoundError:
        modules = {name: ModuleType(name) for name in NAMES}
        for name, module in modules.items():
            parent, _, own = name.rpartition(".")
            module.__dict__.update({attribute: type(attribute, (), {}) for attribute in NAMES[name]}, __path__=[])
            if parent:
                setattr(modules[parent], own, module)
        modules["torchvision"].__dict__["__version__"] = "0.0"
        modules["torchvision.ops"].__dict__.update(nms=nms, batched_nms=batched_nms)
        sys.modules.update(modules)
        version = importlib.metadata.version
        importlib.metadata.version = lambda name: "0.0" if name == "torchvision" else version(name)
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.impl("nms", nms, "CPU")
        _kept.append(library)


_kept: list[torch.library.Library] = []  # an operator lasts as long as its library


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Indices of the kept among (N, 4) xyxy boxes, the highest score first."""
    order = scores.argsort(descending=True, stable=True)
    kept = _greedy(boxes[order].float().contiguous().numpy(), iou_threshold)
    return order[torch.from_numpy(kept)]


def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """The same, per class."""
    if boxes.numel() <= COORDINATE_TRICK_UP_TO:
        if not len(boxes):
            return torch.empty(0, dtype=torch.int64)
        return nms(boxes + (idxs * (boxes.max() + 1))[:, None], scores, iou_threshold)
    keep = torch.zeros(len(scores), dtype=torch.bool)
    for index in torch.unique(idxs):
        own = torch.where(idxs == index)[0]
        keep[own[nms(boxes[own], scores[own], iou_threshold)]] = True
    kept = torch.where(keep)[0]
    return kept[scores[kept].sort(descending=True)[1]]


@compiled
def _greedy(boxes, limit):
    """Each remaining box removes the later ones that overlap it; all pairs are compared."""
    x1, y1, x2, y2 = boxes[:, 0].copy(), boxes[:, 1].copy(), boxes[:, 2].copy(), boxes[:, 3].copy()
    areas = (x2 - x1) * (y2 - y1)
    struck = np.zeros(len(boxes), np.bool_)
    for i in range(len(boxes)):
        if struck[i]:
            continue
        for j in range(i + 1, len(boxes)):
            if struck[j]:
                continue
            width = max(min(x2[i], x2[j]) - max(x1[i], x1[j]), np.float32(0))
            height = max(min(y2[i], y2[j]) - max(y1[i], y1[j]), np.float32(0))
            shared = width * height
            if shared / (areas[i] + areas[j] - shared) > limit:
                struck[j] = True
    return np.flatnonzero(~struck)
