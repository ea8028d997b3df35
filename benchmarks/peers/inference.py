"""The originals' models from an image to decoded boxes, in PyTorch as their own code runs them."""

import contextlib
import importlib
import io

import torch
import yaml

from benchmarks import peers
from benchmarks.contender import Round
from benchmarks.inference import SIZES, THREADS, rounds_of, settled
from benchmarks.peers import torchvision_stand_in


def yolov4_csp() -> Round:
    """The model of the branch yolov4-csp; its test.py and detect.py do not fuse BatchNorm."""
    configuration = peers.require("yolov4-csp") / "models/yolov4-csp.cfg"
    torchvision_stand_in.install()
    torch.set_num_threads(THREADS)
    with contextlib.redirect_stdout(io.StringIO()):
        model = importlib.import_module("models.models").Darknet(str(configuration), SIZES["yolov4-csp"])
    return rounds_of({"yolov4-csp": settled(model)}, torch.contiguous_format)


def yolov7_tiny(fused: bool) -> Round:
    configuration = yaml.safe_load((peers.require("yolov7") / "cfg/training/yolov7-tiny.yaml").read_text())
    torchvision_stand_in.install()
    torch.set_num_threads(THREADS)
    with contextlib.redirect_stdout(io.StringIO()):
        model = settled(importlib.import_module("models.yolo").Model(configuration))
        model = model.fuse().eval() if fused else model
    return rounds_of({"yolov7-tiny": model}, torch.contiguous_format)
