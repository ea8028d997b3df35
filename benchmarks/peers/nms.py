"""The peers' NMS, each called as its own evaluation calls it."""

import importlib
import importlib.util
from types import ModuleType

import torch

from benchmarks import peers
from benchmarks.contender import Round
from benchmarks.nms import CLASSES, CONF, IOU, MAX_DETECTIONS, timed
from benchmarks.peers import torchvision_stand_in


def yolov7() -> Round:
    torchvision_stand_in.install()
    general = importlib.import_module("utils.general")

    return timed(lambda found: len(general.non_max_suppression(found, CONF, IOU, multi_label=True)[0]))


def yolov4_csp() -> Round:
    torchvision_stand_in.install()
    general = importlib.import_module("utils.general")

    return timed(lambda found: len(general.non_max_suppression(found, CONF, IOU)[0]))


def ultralytics() -> Round:
    """Its heads have no objectness: scores are passed already multiplied, boxes and scores by column."""
    torchvision_stand_in.install()
    package = importlib.import_module("ultralytics.utils.nms")

    def suppress(found: torch.Tensor) -> int:
        return len(package.non_max_suppression(found, CONF, IOU, multi_label=True, max_det=MAX_DETECTIONS)[0])

    def columns(found: torch.Tensor) -> torch.Tensor:
        return torch.cat((found[..., :4], found[..., 4:5] * found[..., 5:]), 2).transpose(1, 2).contiguous()

    return timed(suppress, columns)


def yolox() -> Round:
    torchvision_stand_in.install()
    boxes = _file("YOLOX", "yolox/utils/boxes.py")

    return timed(lambda found: len(boxes.postprocess(found, CLASSES, CONF, IOU)[0]))


def _file(peer: str, path: str) -> ModuleType:
    """One file of a checkout as a module, without importing its package."""
    spec = importlib.util.spec_from_file_location("peer", peers.require(peer) / path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
