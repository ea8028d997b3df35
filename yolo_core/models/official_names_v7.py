"""Maps our YOLOv7 models to the authors' weight files: tensor names of `.pt`, layer order of Darknet's `.weights`.

The authors' PyTorch models are a flat list of layers, including concatenation, pooling and so on: the tensors of layer
11 are called `model.11.conv.weight` etc. We get the indices by walking our modules in the order of their
configurations.
"""

from collections.abc import Callable, Iterator
from itertools import chain

import torch
from torch import Tensor, nn

from yolo_core.models.blocks import ConvBnAct
from yolo_core.models.csp import SppCsp
from yolo_core.models.detector import Detector
from yolo_core.models.elan import DownC, Elan, ExtendedElan, LeanSppCsp, MpConv
from yolo_core.models.rep import RepConv
from yolo_core.models.yolov7 import Down, Up, YoloV7

Layer = dict[nn.Module, str]  # one of their layers: our modules that hold its tensors -> their names in that layer
_NO_TENSORS: Layer = {}


def pytorch_names(model: Detector) -> dict[str, str]:
    """Our state-dict keys -> those of the authors' training graph (`cfg/training` of WongKinYiu/yolov7).

    Their inference graph (`cfg/deploy`) has the same names without implicit knowledge and auxiliary heads; its last
    layer, the head, takes the index of the first auxiliary layer.
    """
    own = {module: name for name, module in model.named_modules()}
    return {
        f"{own[module]}.{tensor}": f"model.{index}.{theirs}.{tensor}"
        for index, layer in enumerate(_layers(model))
        for module, theirs in layer.items()
        for tensor in module.state_dict()
    }


def darknet_order(model: Detector) -> list[str]:
    """Our convolutions (`ConvBnAct` or, in the head, plain), in the order of Darknet's configuration.

    Darknet has the folded graph. Its 3x3 convolutions before the head go into the dense branches of RepConv; with the
    other branch zeroed (`RepConv.silence_pointwise`) and neutral implicit knowledge, the outputs are the same.
    """
    body, own = _body(model), {module: name for name, module in model.named_modules()}
    parts = (body.stem, body.stages, body.spp, body.ups, body.downs)
    convs = [module for part in parts for module in part.modules() if isinstance(module, ConvBnAct)]
    ends = (out.dense if isinstance(out, RepConv) else out for out in body.outs)
    return [own[module] for module in chain(convs, *zip(ends, model.head.levels, strict=True))]


def darknet_input_order(model: Detector) -> dict[str, Tensor]:
    """Convolutions of `darknet_order` whose inputs Darknet concatenates in a different order: name -> indices.

    Our weight = Darknet's weight[:, indices]. yolov7-tiny.cfg concatenates the oldest map of a block first.
    """
    orders: dict[str, Tensor] = {}
    if not isinstance(_body(model).spp, LeanSppCsp):
        return orders
    for name, module in model.named_modules():
        if isinstance(module, Elan):
            inputs = [module.bypass, module.enter, *module.layers][::-1]
        elif isinstance(module, LeanSppCsp):
            inputs = [module.after, module.bypass]
        else:
            continue
        sizes = [conv.conv.out_channels for conv in inputs if isinstance(conv, ConvBnAct)]
        places = torch.arange(sum(sizes)).split(sizes[::-1])
        orders[f"{name}.merge"] = torch.cat(places[::-1])
    return orders


def _body(model: Detector) -> YoloV7:
    if not isinstance(model.body, YoloV7):
        raise ValueError(f"{model.spec.name} is not of the YOLOv7 family")
    return model.body


def _layers(model: Detector) -> Iterator[Layer]:
    """The authors' layers, in their order."""
    body = _body(model)
    for module in body.stem:
        yield _conv(module) if isinstance(module, ConvBnAct) else _NO_TENSORS
    for stage in body.stages:
        assert isinstance(stage, nn.Sequential)
        yield from _transition(stage[0])
        if isinstance(stage[0], MpConv):
            yield _NO_TENSORS  # concatenation
        yield from _block(stage[1])
    yield from _spp(body.spp)
    for up in body.ups:
        assert isinstance(up, Up)
        yield from (_conv(up.reduce), _NO_TENSORS, _conv(up.lateral), _NO_TENSORS)
        yield from _block(up.block)
    for down in body.downs:
        assert isinstance(down, Down)
        yield from _transition(down.down)
        yield _NO_TENSORS  # concatenation, with the top-down map
        yield from _block(down.block)
    yield from map(_out, (*body.outs, *(body.auxiliary_outs or ())))
    yield _heads(model)


def _conv(module: nn.Module, prefix: str = "", names: tuple[str, str] = ("conv", "bn")) -> Layer:
    assert isinstance(module, ConvBnAct)
    return {module.conv: prefix + names[0], module.bn: prefix + names[1]}


def _transition(down: nn.Module) -> Iterator[Layer]:
    if isinstance(down, nn.MaxPool2d):
        yield _NO_TENSORS
    elif isinstance(down, ConvBnAct):
        yield _conv(down)
    elif isinstance(down, MpConv):
        yield from (_NO_TENSORS, _conv(down.pooled), _conv(down.reduce), _conv(down.strided))
    else:
        assert isinstance(down, DownC)
        yield _conv(down.reduce, "cv1.") | _conv(down.strided, "cv2.") | _conv(down.pooled, "cv3.")


def _block(block: nn.Module) -> Iterator[Layer]:
    if isinstance(block, ExtendedElan):
        yield from chain.from_iterable(map(_block, block.blocks))
        yield _NO_TENSORS  # addition
    else:
        assert isinstance(block, Elan)
        yield from map(_conv, (block.bypass, block.enter, *block.layers))
        yield _NO_TENSORS  # concatenation
        yield _conv(block.merge)


def _spp(spp: nn.Module) -> Iterator[Layer]:
    if isinstance(spp, LeanSppCsp):
        yield from map(_conv, (spp.bypass, spp.enter))
        yield from [_NO_TENSORS] * 4  # three max pools, concatenation
        yield from (_conv(spp.after), _NO_TENSORS, _conv(spp.merge))
        return
    assert isinstance(spp, SppCsp)
    convs = (spp.enter, spp.bypass, *spp.before, *spp.after, spp.merge)
    layer: Layer = {}
    for number, conv in enumerate(convs, start=1):
        layer |= _conv(conv, f"cv{number}.")
    yield layer


def _out(out: nn.Module) -> Layer:
    if not isinstance(out, RepConv):
        return _conv(out)
    layer = _conv(out.dense, "rbr_dense.", ("0", "1"))
    return layer if out.pointwise is None else layer | _conv(out.pointwise, "rbr_1x1.", ("0", "1"))


def _heads(model: Detector) -> Layer:
    layer: Layer = {}
    for i, (add, conv, multiply) in enumerate(zip(model.head.add, model.head.levels, model.head.multiply, strict=True)):
        layer |= {add: f"ia.{i}", conv: f"m.{i}", multiply: f"im.{i}"}
    if model.auxiliary is not None:
        layer |= {conv: f"m2.{i}" for i, conv in enumerate(model.auxiliary.levels)}
    return layer


# Model -> function that lists its convolutions in the order of its Darknet file.
DARKNET_ORDER: dict[str, Callable[[Detector], list[str]]] = dict.fromkeys(
    ("yolov7-tiny", "yolov7", "yolov7-x"), darknet_order
)
# Model -> function that maps our tensor names to those of the authors' PyTorch file.
PYTORCH_NAMES: dict[str, Callable[[Detector], dict[str, str]]] = dict.fromkeys(
    (
        "yolov7-tiny",
        "yolov7-tiny-silu",
        "yolov7",
        "yolov7-x",
        "yolov7-w6",
        "yolov7-e6",
        "yolov7-d6",
        "yolov7-e6e",
    ),
    pytorch_names,
)
