"""Maps the layers and tensors of our Scaled-YOLOv4 models to those of the authors' weight files.

A Darknet file stores the convolutions in the order of the configuration. The authors' PyTorch for those configurations
(branch yolov4-csp of WongKinYiu/ScaledYOLOv4) numbers the layers of the configuration, `module_list.N`; their PyTorch
for P5 to P7 (branch yolov4-large) numbers the rows of a table, `model.N`.
"""

from collections.abc import Callable, Iterator
from functools import partial

from torch import nn

from yolo_core.models.csp import CspPath, CspStage
from yolo_core.models.detector import Detector

# BatchNorm epsilon used to train the files with `module_list.N`; those with `model.N` use ours.
MODULE_LIST_BN_EPS = 1e-4

Layers = Iterator[str | None]  # dotted names of our convolutions; None for a layer without weights


def darknet_order(model: Detector) -> list[str]:
    """Dotted names of the convolutions (`ConvBnAct`, or `Conv2d` in the head), in the order of the configuration."""
    return [layer for layer in _CONFIGURATIONS[model.spec.name](model) if layer is not None]


def module_list_names(model: Detector) -> dict[str, str]:
    """Our state-dict key -> the key in the authors' PyTorch for Darknet configurations."""
    names = {}
    for position, layer in enumerate(_CONFIGURATIONS[model.spec.name](model)):
        if layer is None:
            continue
        for tensor in model.get_submodule(layer).state_dict():
            theirs = tensor.replace("conv.", "Conv2d.").replace("bn.", "BatchNorm2d.")
            theirs = theirs if "." in theirs else f"Conv2d.{theirs}"
            names[f"{layer}.{tensor}"] = f"module_list.{position}.{theirs}"
    return names


def large_names(model: Detector) -> dict[str, str]:
    """Our state-dict key of yolov4-p5, -p6 or -p7 -> the authors' key."""
    layers = _large_layers(model.get_submodule("body"))
    return {
        f"{ours}.{tensor}": f"{theirs}.{tensor}"
        for ours, theirs in layers
        for tensor in model.get_submodule(ours).state_dict()
    }


def _tiny(model: Detector) -> Layers:
    """yolov4-tiny.cfg and yolov4-tiny-3l.cfg: coarsest level first."""
    yield from ("body.stem.0", "body.stem.1")
    for stage in ("body.stage2", "body.stage3", "body.stage4"):
        layers = model.get_submodule(f"{stage}.layers")
        assert isinstance(layers, nn.ModuleList)
        yield f"{stage}.enter"
        yield None
        yield from (f"{stage}.layers.{i}" for i in range(len(layers)))
        yield None
        yield f"{stage}.mix"
        yield from (None, None)
    yield from ("body.stage5", "body.neck5", "body.out5")
    levels = len(model.strides)
    for step in range(levels):
        if step:
            neck = f"body.neck{5 - step}"
            yield from (None, f"{neck}.reduce", None, None, f"{neck}.merge")
        yield from (f"head.levels.{levels - 1 - step}", None)


def _scaled(heads_last: bool, model: Detector) -> Layers:
    """yolov4-csp.cfg, with each head after its level; yolov4-p5.cfg and yolov4-p6.cfg, with all heads at the end."""
    body = model.get_submodule("body")
    yield "body.stem"
    yield from _each("body.stages", body, _stage)
    yield from ("body.spp.bypass", None, "body.spp.enter", "body.spp.before.0", "body.spp.before.1")
    yield from (None,) * 6  # three max pools, three routes
    yield from ("body.spp.after.0", "body.spp.after.1", None, "body.spp.merge")
    yield from _each("body.ups", body, _up)
    for level in range(len(model.strides)):
        if level:
            down = f"body.downs.{level - 1}"
            if not heads_last:
                yield None
            yield from (f"{down}.down", None)
            yield from _path(f"{down}.path", body.get_submodule(f"downs.{level - 1}.path"))
        if not heads_last:
            yield from (f"body.outs.{level}", f"head.levels.{level}", None)
    if heads_last:
        for level in range(len(model.strides)):
            yield from (None, f"body.outs.{level}", f"head.levels.{level}", None)


def _each(name: str, body: nn.Module, layers_of: Callable[[str, nn.Module], Layers]) -> Layers:
    for child, part in body.get_submodule(name.removeprefix("body.")).named_children():
        yield from layers_of(f"{name}.{child}", part)


def _stage(name: str, stage: nn.Module) -> Layers:
    yield f"{name}.down"
    partial_stage = isinstance(stage, CspStage)
    if partial_stage:
        yield from (f"{name}.bypass", None, f"{name}.enter")
    for block, _ in stage.get_submodule("blocks").named_children():
        yield from (f"{name}.blocks.{block}.squeeze", f"{name}.blocks.{block}.expand", None)
    if partial_stage:
        yield from (f"{name}.exit", None, f"{name}.merge")


def _up(name: str, up: nn.Module) -> Layers:
    yield from (f"{name}.reduce", None, None, f"{name}.lateral", None)
    yield from _path(f"{name}.path", up.get_submodule("path"))


def _path(name: str, path: nn.Module) -> Layers:
    yield from (f"{name}.enter", f"{name}.bypass", None)
    yield from (f"{name}.blocks.{block}" for block, _ in path.get_submodule("blocks").named_children())
    yield from (None, f"{name}.merge")


def _large_layers(body: nn.Module) -> Iterator[tuple[str, str]]:
    """Pairs of our layer and theirs, in the order of their table."""
    yield "body.stem", "model.0"
    row = 1
    for child, stage in body.get_submodule("stages").named_children():
        yield f"body.stages.{child}.down", f"model.{row}"
        yield from _large_stage(f"body.stages.{child}", stage, f"model.{row + 1}")
        row += 2
    spp = ("enter", "bypass", "before.0", "before.1", "after.0", "after.1", "merge")
    yield from ((f"body.spp.{ours}", f"model.{row}.cv{i}") for i, ours in enumerate(spp, start=1))
    yield "body.spp.join.bn", f"model.{row}.bn"
    row += 1
    for child, up in body.get_submodule("ups").named_children():  # reduce, upsample, lateral, concatenate, path
        yield f"body.ups.{child}.reduce", f"model.{row}"
        yield f"body.ups.{child}.lateral", f"model.{row + 2}"
        yield from _large_path(f"body.ups.{child}.path", up.get_submodule("path"), f"model.{row + 4}")
        row += 5
    yield "body.outs.0", f"model.{row}"
    row += 1
    for child, down in body.get_submodule("downs").named_children():  # downsample, concatenate, path, output
        yield f"body.downs.{child}.down", f"model.{row}"
        yield from _large_path(f"body.downs.{child}.path", down.get_submodule("path"), f"model.{row + 2}")
        yield f"body.outs.{int(child) + 1}", f"model.{row + 3}"
        row += 4
    for level, _ in body.get_submodule("outs").named_children():
        yield f"head.levels.{level}", f"model.{row}.m.{level}"


def _large_stage(ours: str, stage: nn.Module, theirs: str) -> Iterator[tuple[str, str]]:
    yield from ((f"{ours}.{part}", f"{theirs}.cv{i}") for i, part in enumerate(("enter", "bypass", "exit", "merge"), 1))
    for block, _ in stage.get_submodule("blocks").named_children():
        yield f"{ours}.blocks.{block}.squeeze", f"{theirs}.m.{block}.cv1"
        yield f"{ours}.blocks.{block}.expand", f"{theirs}.m.{block}.cv2"
    yield f"{ours}.join.bn", f"{theirs}.bn"


def _large_path(ours: str, path: nn.Module, theirs: str) -> Iterator[tuple[str, str]]:
    assert isinstance(path, CspPath)
    yield from ((f"{ours}.{part}", f"{theirs}.cv{i}") for i, part in enumerate(("enter", "bypass", "merge"), 1))
    for i in range(len(path.blocks)):
        yield f"{ours}.blocks.{i}", f"{theirs}.m.{i // 2}.cv{i % 2 + 1}"
    yield f"{ours}.join.bn", f"{theirs}.bn"


_CONFIGURATIONS: dict[str, Callable[[Detector], Layers]] = {
    "yolov4-tiny": _tiny,
    "yolov4-tiny-3l": _tiny,
    "yolov4-csp": partial(_scaled, False),
    "yolov4-csp-leaky": partial(_scaled, False),
    "yolov4-p5-darknet": partial(_scaled, True),
    "yolov4-p6-darknet": partial(_scaled, True),
}
# Model -> function that lists its convolutions in the order of its Darknet file.
DARKNET_ORDER: dict[str, Callable[[Detector], list[str]]] = dict.fromkeys(_CONFIGURATIONS, darknet_order)
# Model -> function that maps our tensor names to those of the authors' PyTorch file.
PYTORCH_NAMES: dict[str, Callable[[Detector], dict[str, str]]] = {
    **dict.fromkeys(_CONFIGURATIONS, module_list_names),
    **dict.fromkeys(("yolov4-p5", "yolov4-p6", "yolov4-p7"), large_names),
}
