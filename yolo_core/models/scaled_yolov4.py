"""Scaled-YOLOv4: yolov4-csp, its ablation grid, and the large models P5, P6, P7 (arXiv 2011.08036, section 4).

All share one configurable body: a backbone of Darknet or CSP stages and a pyramid of top-down and bottom-up steps. Each
large model adds one stage and one level to the previous one.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from yolo_core.hyperparameters import Hyperparameters
from yolo_core.models.blocks import Activation, ConvBnAct, leaky, mish
from yolo_core.models.csp import CspPath, DarknetPath, Spp, SppCsp, Variant, darknet_stages
from yolo_core.models.detector import Body
from yolo_core.models.spec import (
    COCO_ANCHORS,
    SIGMOID_CODING,
    Anchors,
    LossSpec,
    ModelSpec,
    Published,
    Recipe,
    Scaling,
    SecondStage,
)

_PAPER = "arXiv 2011.08036v2"
_V100 = "Tesla V100, batch 1"


@dataclass(frozen=True)
class Design:
    """What distinguishes the models of the family.

    repeats: residual blocks per stage, from stride 2; detection levels start at the third stage.
    first_csp: index of the first CSP stage; the ones before it are plain Darknet.
    csp_neck: whether the neck uses CSP blocks; neck_repeats: pairs of convolutions in each block.
    bottom_up: whether a bottom-up path follows the top-down one (PAN) or not (FPN).
    width: channel multiplier, on top of the caller's.
    """

    repeats: tuple[int, ...]
    first_csp: int
    neck_repeats: int
    csp_neck: bool = True
    bottom_up: bool = True
    width: float = 1.0
    activation: Activation = mish
    variant: Variant = "darknet"


CSP = Design(repeats=(1, 2, 8, 8, 4), first_csp=1, neck_repeats=2)
CSP_LEAKY = replace(CSP, activation=leaky)

LARGE_REPEATS = (1, 3, 15, 15, 7, 7, 7)
P5 = Design(repeats=LARGE_REPEATS[:5], first_csp=0, neck_repeats=3, variant="pytorch")
P6 = replace(P5, repeats=LARGE_REPEATS[:6])
P7 = replace(P5, repeats=LARGE_REPEATS, width=1.25)
# Darknet's yolov4-p5.cfg and yolov4-p6.cfg differ from the PyTorch models in the neck: see the variants in `csp`.
P5_DARKNET = replace(P5, variant="darknet")
P6_DARKNET = replace(P6, variant="darknet")

_CSP_HYP = Hyperparameters(cls=0.3, obj=0.7, warmup_momentum=0.8, translate=0.1, scale=0.9)
_LARGE_HYP = Hyperparameters()
_LARGE_SECOND_STAGE = SecondStage(epochs=450, hyp=_LARGE_HYP.replace(scale=0.8, mixup=0.2))

YOLOV4_CSP = ModelSpec(
    name="yolov4-csp",
    family="yolov4-csp",
    native_size=640,
    strides=(8, 16, 32),
    anchors=COCO_ANCHORS,
    coding=SIGMOID_CODING,
    hyp=_CSP_HYP,
    recipe=Recipe(epochs=300, batch=64, size=640),
    loss=LossSpec(balance=(4.0, 1.0, 0.4)),
    published=Published(_PAPER, params_m=52.9, gflops=120.2, ap=47.5, ap50=66.2, ap75=51.7, fps=70, fps_on=_V100),
)
YOLOV4_CSP_LEAKY = replace(
    YOLOV4_CSP, name="yolov4-csp-leaky", published=Published(f"{_PAPER}, table 8, at 608 px", params_m=53, ap=46.9)
)


def _large(name: str, size: int, anchors: Anchors, loss: LossSpec, published: Published) -> ModelSpec:
    return ModelSpec(
        name=name,
        family="yolov4-large",
        native_size=size,
        strides=tuple(8 << level for level in range(len(anchors))),
        anchors=anchors,
        coding=SIGMOID_CODING,
        hyp=_LARGE_HYP,
        recipe=Recipe(epochs=300, batch=64, size=size, second_stage=_LARGE_SECOND_STAGE),
        loss=loss,
        published=published,
    )


YOLOV4_P5 = _large(
    "yolov4-p5",
    896,
    (
        ((13, 17), (31, 25), (24, 51), (61, 45)),
        ((48, 102), (119, 96), (97, 189), (217, 184)),
        ((171, 384), (324, 451), (616, 618), (800, 800)),
    ),
    LossSpec(balance=(4.0, 1.0, 0.4)),
    Published(_PAPER, params_m=70.8, gflops=326.6, ap=51.8, ap50=70.3, ap75=56.6, fps=41, fps_on=_V100),
)
YOLOV4_P6 = _large(
    "yolov4-p6",
    1280,
    (
        ((13, 17), (31, 25), (24, 51), (61, 45)),
        ((61, 45), (48, 102), (119, 96), (97, 189)),
        ((97, 189), (217, 184), (171, 384), (324, 451)),
        ((324, 451), (545, 357), (616, 618), (1024, 1024)),
    ),
    LossSpec(balance=(4.0, 1.0, 0.4, 0.1), obj_factor=1.4),
    Published(_PAPER, params_m=127.6, gflops=717.0, ap=54.5, ap50=72.6, ap75=59.8, fps=30, fps_on=_V100),
)
YOLOV4_P7 = _large(
    "yolov4-p7",
    1536,
    (
        ((13, 17), (22, 25), (27, 66), (55, 41)),
        ((57, 88), (112, 69), (69, 177), (136, 138)),
        ((136, 138), (287, 114), (134, 275), (268, 248)),
        ((268, 248), (232, 504), (445, 416), (640, 640)),
        ((812, 393), (477, 808), (1070, 908), (1408, 1408)),
    ),
    LossSpec(balance=(4.0, 1.0, 0.5, 0.4, 0.1), obj_factor=1.4),
    Published(_PAPER, params_m=287.6, gflops=1636.7, ap=55.5, ap50=73.4, ap75=60.8, fps=16, fps_on=_V100),
)
YOLOV4_P5_DARKNET = replace(YOLOV4_P5, name="yolov4-p5-darknet", published=Published("AlexeyAB/darknet, yolov4-p5.cfg"))
YOLOV4_P6_DARKNET = replace(YOLOV4_P6, name="yolov4-p6-darknet", published=Published("AlexeyAB/darknet, yolov4-p6.cfg"))


def _ablation(name: str, activation: str, published: Published) -> ModelSpec:
    recipe = replace(YOLOV4_CSP.recipe, size=608)
    return replace(YOLOV4_CSP, name=f"{name}-{activation}", native_size=608, recipe=recipe, published=published)


def _grid() -> list[tuple[ModelSpec, Design]]:
    """The ablation of table 8: what CSP gains in the backbone and in the neck."""
    d53 = replace(CSP, first_csp=len(CSP.repeats), csp_neck=False)
    designs = {
        "d53-fpnspp": replace(d53, bottom_up=False),
        "d53-panspp": d53,
        "cd53s-cfpnspp": replace(CSP, bottom_up=False),
        "cd53s-cpanspp": CSP,
    }
    rows = [  # name, parameters (millions), GFLOPs, then (FPS, AP) with leaky ReLU and with Mish
        ("d53-fpnspp", 63, 142, (208, 43.5), (196, 45.3)),
        ("d53-panspp", 78, 160, (196, 46.5), (185, 46.9)),
        ("cd53s-cfpnspp", 43, 97, (222, 45.7), (208, 46.3)),
        ("cd53s-cpanspp", 53, 109, (208, 46.9), (200, 47.5)),
    ]
    grid = []
    for name, params_m, gflops, *figures in rows:
        for activation, (fps, ap) in zip((leaky, mish), figures, strict=True):
            published = Published(f"{_PAPER}, table 8", params_m, gflops, ap, fps=fps, fps_on="Tesla V100, batch 8")
            spec = _ablation(name, activation.__name__, published)
            grid.append((spec, replace(designs[name], activation=activation)))
    return grid


CSP_ABLATION = _grid()


class Up(nn.Module):
    """A neck step to the next finer level: reduce, upsample, concatenate the backbone's map, compute.

    forward: coarse (B, c_in, H, W), lateral (B, c_lateral, 2H, 2W) -> (B, c_out, 2H, 2W).
    """

    def __init__(self, c_in: int, c_lateral: int, c_out: int, path: nn.Module, activation: Activation):
        super().__init__()
        self.reduce = ConvBnAct(c_in, c_out, 1, activation=activation)
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")
        self.lateral = ConvBnAct(c_lateral, c_out, 1, activation=activation)
        self.path = path

    def forward(self, coarse: Tensor, lateral: Tensor) -> Tensor:
        return self.path(torch.cat((self.lateral(lateral), self.upsample(self.reduce(coarse))), 1))


class Down(nn.Module):
    """A neck step to the next coarser level: downsample, concatenate the top-down map, compute.

    forward: fine (B, c_in, 2H, 2W), coarse (B, c_out, H, W) -> (B, c_out, H, W).
    """

    def __init__(self, c_in: int, c_out: int, path: nn.Module, activation: Activation):
        super().__init__()
        self.down = ConvBnAct(c_in, c_out, 3, 2, activation)
        self.path = path

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        return self.path(torch.cat((self.down(fine), coarse), 1))


class ScaledYoloV4(Body):
    """Backbone and neck of a design, with one detection level per stage from the third (stride 8)."""

    def __init__(self, design: Design, scaling: Scaling):
        super().__init__()
        scaling = replace(scaling, width=scaling.width * design.width)
        published = [min(64 << stage, 1024) for stage in range(len(design.repeats))]
        stages = [scaling.channels(count) for count in published]
        levels = [scaling.channels(count // 2) for count in published[2:]]  # the neck's channels, finest first
        act = design.activation

        def path(channels: int) -> nn.Module:
            repeats = _repeats(scaling, design.neck_repeats)
            if design.csp_neck:
                return CspPath(2 * channels, channels, repeats, act, design.variant)
            return DarknetPath(2 * channels, channels, repeats, act)

        self.stem = ConvBnAct(3, scaling.channels(32), 3, activation=act)
        repeats = [_repeats(scaling, count) for count in design.repeats]
        self.stages = darknet_stages([scaling.channels(32), *stages], repeats, design.first_csp, act, design.variant)
        self.spp = (
            SppCsp(stages[-1], levels[-1], act, design.variant) if design.csp_neck else Spp(stages[-1], levels[-1], act)
        )
        self.ups = nn.ModuleList(  # coarse to fine
            Up(levels[i + 1], stages[i + 2], levels[i], path(levels[i]), act) for i in reversed(range(len(levels) - 1))
        )
        self.downs = nn.ModuleList(  # fine to coarse
            Down(levels[i], levels[i + 1], path(levels[i + 1]), act) for i in range(len(levels) - 1) if design.bottom_up
        )
        self.outs = nn.ModuleList(
            ConvBnAct(c, out, 3, activation=act) for c, out in zip(levels, stages[2:], strict=True)
        )
        self.out_channels = tuple(stages[2:])

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.run(self.stem, images)
        laterals: list[Tensor] = []
        for stage in self.stages:
            x = self.run(stage, x)
            laterals.append(x)
        features = [self.run(self.spp, x)]
        for up, lateral in zip(self.ups, laterals[-2:1:-1], strict=True):
            features.insert(0, self.run(up, features[0], lateral))
        for level, down in enumerate(self.downs, start=1):
            features[level] = self.run(down, features[level - 1], features[level])
        outs = zip(self.outs, features, strict=False)  # fewer outs than features if levels were dropped
        return [self.run(out, feature) for out, feature in outs]


def _repeats(scaling: Scaling, count: int) -> int:
    """Scaled repeats; as in the authors' code, the depth multiplier does not affect single blocks."""
    return count if count == 1 else scaling.repeats(count)
