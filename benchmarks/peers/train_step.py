"""A training step of the authors' code: their model, loss, optimizer and EMA, in the order of their `train.py`.

Weights, images, targets and the epsilon of BatchNorm are ours, so that the first loss can be compared.
"""

import contextlib
import io
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

import torch
from torch import Tensor, nn

from benchmarks import peers
from benchmarks.contender import Round
from benchmarks.peers import torchvision_stand_in
from benchmarks.train_step import CLASSES, batch_of, model_of, stepping
from yolo_core.models.blocks import BN_EPS
from yolo_core.models.official_weights import PYTORCH_NAMES

Losses = Callable[[Sequence[Tensor], Tensor, Tensor], Tensor]  # of predictions, targets and images
Network = TypeVar("Network")


def yolov7(model: str, size: int, batch: int, steps: int, device: str) -> Round:
    """`Model` and `ComputeLossOTA` of WongKinYiu/yolov7."""
    root = peers.require("yolov7")
    torchvision_stand_in.install()
    _accept_float_bounds()
    with contextlib.redirect_stdout(io.StringIO()):
        from models.yolo import Model  # pyright: ignore[reportMissingImports]
        from utils.loss import ComputeLossOTA  # pyright: ignore[reportMissingImports]

        network = Model(str(root / f"cfg/training/{model}.yaml"), nc=CLASSES)
    hyp = _prepare(network, model, device)
    hyp["obj"] *= (size / 640) ** 2
    network.hyp = hyp
    compute = ComputeLossOTA(network)
    return _round(network, size, batch, steps, device, lambda maps, targets, images: compute(maps, targets, images)[0])


def scaled_yolov4(model: str, size: int, batch: int, steps: int, device: str) -> Round:
    """`Darknet` and `compute_loss` of the branch yolov4-csp of WongKinYiu/ScaledYOLOv4."""
    root = peers.require("yolov4-csp")
    torchvision_stand_in.install()
    _accept_float_bounds()
    with contextlib.redirect_stdout(io.StringIO()):
        from models.models import Darknet  # pyright: ignore[reportMissingImports]
        from utils.loss import compute_loss  # pyright: ignore[reportMissingImports]

        tiny = model == "yolov4-tiny"
        network = _tiny(Darknet) if tiny else Darknet(str(root / f"models/{model}.cfg"))
    network.hyp = _prepare(network, model, device)
    coarsest_first = slice(None, None, -1) if tiny else slice(None)  # the loss takes the finest map first
    network.yolo_layers = network.yolo_layers[coarsest_first]

    def compute(maps: Sequence[Tensor], targets: Tensor, images: Tensor) -> Tensor:
        with ranges_on(targets.device):
            return compute_loss(maps[coarsest_first], targets, network)[0]

    return _round(network, size, batch, steps, device, compute)


def _tiny(darknet: Callable[[str], Network]) -> Network:
    """Darknet's yolov4-tiny.cfg; its routes of half the channels exist here as a layer that takes the other half."""
    from utils import layers  # pyright: ignore[reportMissingImports]

    text = (peers.require("yolov4-tiny") / "cfg/yolov4-tiny.cfg").read_text()
    halves = "[route_lhalf]\nlayers=-1\n"
    lines = [line.strip().replace(" ", "") for line in text.splitlines()]
    known = [line for line in lines if line and not line.startswith(("#", "resize="))]
    text = "\n".join(known).replace("[route]\nlayers=-1\ngroups=2\ngroup_id=1", halves)
    layers.FeatureConcat_l.forward = lambda self, x, outputs: outputs[self.layers[0]].chunk(2, 1)[1]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "yolov4-tiny.cfg"  # it derives the strides from the name
        path.write_text(text)
        return darknet(os.fspath(path))


@contextlib.contextmanager
def ranges_on(device: torch.device) -> Iterator[None]:
    """Within the block, `torch.arange` without a device makes its tensor on this one.

    `build_targets` numbers the anchors on the CPU and picks from them with a mask on the GPU, which PyTorch refuses.
    """
    with patch.object(torch, "arange", partial(torch.arange, device=device)):
        yield


def _accept_float_bounds() -> None:
    """`clamp_` of an integer tensor with a bound in a float tensor, as PyTorch accepted it then."""
    own = torch.Tensor.clamp_

    def clamp(self: Tensor, low: Any = None, high: Any = None) -> Tensor:
        whole = isinstance(high, Tensor) and not self.is_floating_point()
        return own(self, low, int(high) if whole else high)

    torch.Tensor.clamp_ = clamp  # pyright: ignore[reportAttributeAccessIssue]


def _prepare(network: Any, name: str, device: str) -> dict[str, float]:
    """Load our weights; returns our recipe in the form that its losses expect."""
    ours = model_of(name)
    state, theirs = ours.state_dict(), network.state_dict()
    with torch.no_grad():
        for key, other in PYTORCH_NAMES[name](ours).items():
            theirs[other].copy_(state[key])
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = BN_EPS
    network.to(device).train()
    network.nc, network.gr = CLASSES, 1.0
    hyp = ours.spec.hyp
    fixed = {"cls_pw": 1.0, "obj_pw": 1.0, "fl_gamma": 0.0, "label_smoothing": 0.0, "anchor_t": hyp.anchor_t}
    return {**fixed, "box": hyp.box, "cls": hyp.cls, "obj": hyp.obj}


def _round(network: nn.Module, size: int, batch: int, steps: int, device: str, compute: Losses) -> Round:
    """One step of their `train.py` at a time; mixed precision on a GPU only, as in theirs."""
    from utils.torch_utils import ModelEMA  # pyright: ignore[reportMissingImports]

    weights, others, biases = [], [], []
    for name, parameter in network.named_parameters():
        decays = parameter.dim() == 4 and "implicit" not in name
        (biases if ".bias" in name else weights if decays else others).append(parameter)
    optimizer = torch.optim.SGD(others, lr=0.01, momentum=0.937, nesterov=True)
    optimizer.add_param_group({"params": weights, "weight_decay": 0.0005})
    optimizer.add_param_group({"params": biases})
    average, scaler, half = ModelEMA(network), torch.amp.GradScaler(device, enabled=device == "cuda"), device == "cuda"
    pixels, targets = batch_of(size, batch)
    targets = targets / targets.new_tensor([1, 1, size, size, size, size])

    def step() -> float:
        images = pixels.to(device, non_blocking=True).float() / 255.0
        with torch.amp.autocast(device, enabled=half):
            loss = compute(network(images), targets.to(device), images)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        average.update(network)
        return loss.item() / batch

    return stepping(step, batch, steps, device)
