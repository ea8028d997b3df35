"""yolov4-tiny, with three CSP one-shot-aggregation stages and a top-down neck, and its ablations (arXiv 2011.08036)."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from yolo_core.hyperparameters import Hyperparameters
from yolo_core.models.blocks import ConvBnAct, CspOsa, leaky
from yolo_core.models.csp import darknet_stages
from yolo_core.models.detector import Body
from yolo_core.models.spec import COCO_ANCHORS, SIGMOID_CODING, LossSpec, ModelSpec, Published, Recipe, Scaling

_RECIPE = Recipe(epochs=600, batch=64, size=416)
_HYP = Hyperparameters(cls=0.3, obj=0.7, warmup_momentum=0.8, translate=0.1, scale=0.9)

YOLOV4_TINY = ModelSpec(
    name="yolov4-tiny",
    family="yolov4-tiny",
    native_size=416,
    strides=(16, 32),
    anchors=(
        ((23, 27), (37, 58), (81, 82)),
        ((81, 82), (135, 169), (344, 319)),
    ),
    coding=SIGMOID_CODING,
    hyp=_HYP,
    recipe=_RECIPE,
    loss=LossSpec(balance=(4.0, 1.0)),
    published=Published(
        source="arXiv 2011.08036v2",
        params_m=6.06,
        gflops=6.9,
        ap=22.0,
        ap50=42.1,
        ap75=20.7,
        fps=443,
        fps_on="RTX 2080 Ti, Darknet",
    ),
)

YOLOV4_TINY_3L = ModelSpec(
    name="yolov4-tiny-3l",
    family="yolov4-tiny",
    native_size=608,
    strides=(8, 16, 32),
    anchors=COCO_ANCHORS,
    coding=SIGMOID_CODING,
    hyp=_HYP,
    recipe=Recipe(epochs=600, batch=64, size=608),
    loss=LossSpec(balance=(4.0, 1.0, 0.4)),
    published=Published(source="AlexeyAB/darknet, yolov4-tiny-3l.cfg"),
)


def _ablation(name: str, gflops: float, fps: float, ap: float) -> ModelSpec:
    published = Published("arXiv 2011.08036v2, table 9", gflops=gflops, ap=ap, fps=fps, fps_on="Jetson TX2")
    return replace(YOLOV4_TINY, name=name, published=published)


TINY_CD53S = _ablation("tinycd53s", 7.0, 30, 22.2)
COSA_1X3X = _ablation("cosa-1x3x", 7.6, 38, 22.5)
COSA_2X2X = _ablation("cosa-2x2x", 6.9, 42, 22.0)
COSA_3X1X = _ablation("cosa-3x1x", 6.3, 46, 21.2)


class TopDown(nn.Module):
    """A neck step to the next finer level: reduce, upsample, concatenate the lateral path, merge.

    forward: coarse (B, c_in, H, W), lateral (B, c_lateral, 2H, 2W) -> (B, c_out, 2H, 2W).
    """

    def __init__(self, c_in: int, c_up: int, c_lateral: int, c_out: int):
        super().__init__()
        self.reduce = ConvBnAct(c_in, c_up, 1)
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")
        self.merge = ConvBnAct(c_up + c_lateral, c_out, 3)

    def forward(self, coarse: Tensor, lateral: Tensor) -> Tensor:
        return self.merge(torch.cat((self.upsample(self.reduce(coarse)), lateral), 1))


class YoloV4Tiny(Body):
    """Backbone and neck with two levels (P4, P5) or three (P3 to P5).

    The depth multiplier scales the number of aggregated convolutions per stage, two in the published model.
    crossing: how many of four halves bypass a stage (see `CspOsa`), two in the published model.
    """

    def __init__(self, levels: int, scaling: Scaling, crossing: int = 2):
        super().__init__()
        c = scaling.channels
        layers = scaling.repeats(2)
        self.stem = nn.Sequential(ConvBnAct(3, c(32), 3, 2), ConvBnAct(c(32), c(64), 3, 2))
        self.stage2 = CspOsa(c(64), c(64), layers, crossing)
        self.stage3 = CspOsa(2 * c(64), c(128), layers, crossing)
        self.stage4 = CspOsa(2 * c(128), c(256), layers, crossing)
        self.stage5 = ConvBnAct(2 * c(256), c(512), 3)
        self.shrink = nn.MaxPool2d(2)
        self.neck5 = ConvBnAct(c(512), c(256), 1)
        self.out5 = ConvBnAct(c(256), c(512), 3)
        self.neck4 = TopDown(c(256), c(128), self.stage4.c_mixed, c(256))
        self.neck3 = TopDown(c(256), c(64), self.stage3.c_mixed, c(128)) if levels == 3 else None
        self.out_channels = tuple(c(n) for n in (128, 256, 512)[-levels:])

    def forward(self, images: Tensor) -> list[Tensor]:
        x, _ = self.run(self.stage2, self.run(self.stem, images))
        x, lateral3 = self.run(self.stage3, self.shrink(x))
        x, lateral4 = self.run(self.stage4, self.shrink(x))
        p5 = self.run(self.neck5, self.run(self.stage5, self.shrink(x)))
        p4 = self.run(self.neck4, p5, lateral4)
        features = [p4, self.run(self.out5, p5)]
        if self.neck3 is not None:
            features.insert(0, self.run(self.neck3, p4, lateral3))
        return features


class TinyCd53s(Body):
    """CSPDarknet53s, scaled down linearly, with the neck of yolov4-tiny: the baseline for its partial stages.

    Has half of the channels and a third of the 1-2-8-8-4 residual blocks.
    """

    def __init__(self, scaling: Scaling):
        super().__init__()
        c = scaling.channels
        self.stem = ConvBnAct(3, c(16), 3)
        channels = [c(n) for n in (16, 32, 64, 128, 256, 512)]
        self.stages = darknet_stages(channels, [scaling.repeats(n) for n in (1, 1, 3, 3, 1)], 1, leaky, "darknet")
        self.neck5 = ConvBnAct(c(512), c(256), 1)
        self.out5 = ConvBnAct(c(256), c(512), 3)
        self.neck4 = TopDown(c(256), c(128), c(256), c(256))
        self.out_channels = (c(256), c(512))

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.run(self.stem, images)
        stages: list[Tensor] = []
        for stage in self.stages:
            x = self.run(stage, x)
            stages.append(x)
        p5 = self.run(self.neck5, x)
        return [self.run(self.neck4, p5, stages[-2]), self.run(self.out5, p5)]
