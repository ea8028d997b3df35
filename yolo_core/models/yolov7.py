"""YOLOv7: yolov7-tiny, yolov7, yolov7-x and, for 1280 px, yolov7-w6, -e6, -d6, -e6e (arXiv 2207.02696).

All share one body: ELAN stages with transitions between them, a pyramid of top-down and bottom-up steps, and 3x3
convolutions before the head. A `Design` holds what distinguishes each scale.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from yolo_core.models.blocks import Activation, ConvBnAct, leaky, silu
from yolo_core.models.csp import SppCsp
from yolo_core.models.detector import Body
from yolo_core.models.elan import DownC, Elan, ExtendedElan, LeanSppCsp, MpConv, ReOrg, add_up
from yolo_core.models.rep import RepConv
from yolo_core.models.spec import Scaling

# How a map is downsampled: by a strided convolution, max pooling, or both in parallel.
Transition = Literal["conv", "pool", "mp-conv", "down-c"]


@dataclass(frozen=True)
class ElanKind:
    """every: concatenate every n-th output of the chain; shrink: block width / width of the chain's convolutions."""

    every: int
    shrink: int = 1

    def concatenated(self, layers: int) -> float:
        """Number of concatenated channels with a chain of `layers` convolutions, in units of the block's width."""
        return 2 + layers / self.every / self.shrink


@dataclass(frozen=True)
class Block:
    """Channels of a stage or a neck step: at the input of its ELAN block, inside it, at its output."""

    enter: int
    width: int
    out: int


@dataclass(frozen=True)
class Design:
    """A scale of the family. Channels are for blocks of `counted_at` convolutions; see `transition_factor`.

    stem: (channels, stride) of the 3x3 convolutions, after a ReOrg if `reorg`.
    stages: from stride 4; the coarsest ones have detection levels. spp: output channels of the pyramid pooling.
    ups: top-down steps, coarse to fine; downs: bottom-up steps, fine to coarse.
    outs, auxiliary: channels before the head and the auxiliary head, finest level first.
    transitions: into the first stage, into the other stages, in the neck.
    layers: 3x3 convolutions in the chain of each block. extended: E-ELAN instead of ELAN.
    rep: whether the convolutions before the head are re-parameterised.
    """

    stem: tuple[tuple[int, int], ...]
    stages: tuple[Block, ...]
    spp: int
    ups: tuple[Block, ...]
    downs: tuple[Block, ...]
    outs: tuple[int, ...]
    transitions: tuple[Transition, Transition, Transition]
    layers: int = 4
    counted_at: int = 4
    backbone_elan: ElanKind = ElanKind(every=2)
    neck_elan: ElanKind = ElanKind(every=1, shrink=2)
    auxiliary: tuple[int, ...] = ()
    reorg: bool = False
    extended: bool = False
    rep: bool = False
    lean_spp: bool = False
    activation: Activation = silu

    def deepened(self, scaling: Scaling) -> "Design":
        """The design with longer chains, in whole steps between two concatenated outputs."""
        every = self.backbone_elan.every
        return replace(self, layers=every * scaling.repeats(self.layers // every))

    def transition_factor(self) -> float:
        """Compound scaling of concatenation-based models (section 3.2): more layers per block widen its concatenation,
        so the layers between the blocks are widened in proportion; those inside are not."""
        return self.backbone_elan.concatenated(self.layers) / self.backbone_elan.concatenated(self.counted_at)


_EVERY_OUTPUT = ElanKind(every=1)
TINY = Design(
    stem=((32, 2),),
    stages=(Block(64, 32, 64), Block(64, 64, 128), Block(128, 128, 256), Block(256, 256, 512)),
    spp=256,
    ups=(Block(128, 64, 128), Block(64, 32, 64)),
    downs=(Block(128, 64, 128), Block(256, 128, 256)),
    outs=(128, 256, 512),
    transitions=("conv", "pool", "conv"),
    layers=2,
    counted_at=2,
    backbone_elan=_EVERY_OUTPUT,
    neck_elan=_EVERY_OUTPUT,
    lean_spp=True,
    activation=leaky,
)
TINY_SILU = replace(TINY, activation=silu)

V7 = Design(
    stem=((32, 1), (64, 2), (64, 1)),
    stages=(Block(128, 64, 256), Block(256, 128, 512), Block(512, 256, 1024), Block(1024, 256, 1024)),
    spp=512,
    ups=(Block(256, 256, 256), Block(128, 128, 128)),
    downs=(Block(256, 256, 256), Block(512, 512, 512)),
    outs=(256, 512, 1024),
    transitions=("conv", "mp-conv", "mp-conv"),
    rep=True,
)
V7_X = replace(V7, layers=6, neck_elan=V7.backbone_elan, rep=False)

W6 = Design(
    reorg=True,
    stem=((64, 1),),
    stages=(
        Block(128, 64, 128),
        Block(256, 128, 256),
        Block(512, 256, 512),
        Block(768, 384, 768),
        Block(1024, 512, 1024),
    ),
    spp=512,
    ups=(Block(384, 384, 384), Block(256, 256, 256), Block(128, 128, 128)),
    downs=(Block(256, 256, 256), Block(384, 384, 384), Block(512, 512, 512)),
    outs=(256, 512, 768, 1024),
    auxiliary=(320, 640, 960, 1280),
    transitions=("conv", "conv", "conv"),
)
E6 = replace(W6, layers=6, auxiliary=W6.outs, transitions=("down-c", "down-c", "down-c"))
D6 = replace(E6, layers=8)
E6E = replace(E6, extended=True)


class Up(nn.Module):
    """A neck step to the next finer level: reduce, upsample, concatenate the backbone's map, aggregate.

    forward: coarse (B, c_in, H, W), lateral (B, c_lateral, 2H, 2W) -> (B, c_out, 2H, 2W) and the output of the block's
    last branch, of the same shape, for an auxiliary head; without E-ELAN both are the same tensor.
    """

    def __init__(self, c_in: int, c_lateral: int, c_enter: int, block: Elan | ExtendedElan, activation: Activation):
        super().__init__()
        self.reduce = ConvBnAct(c_in, c_enter, 1, activation=activation)
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")
        self.lateral = ConvBnAct(c_lateral, c_enter, 1, activation=activation)
        self.block = block

    def forward(self, coarse: Tensor, lateral: Tensor) -> tuple[Tensor, Tensor]:
        joined = torch.cat((self.lateral(lateral), self.upsample(self.reduce(coarse))), 1)
        branches = self.block.branches(joined)
        return add_up(branches), branches[-1]


class Down(nn.Module):
    """A neck step to the next coarser level: downsample, concatenate the top-down map, aggregate.

    forward: fine (B, c_in, 2H, 2W), coarse (B, c_coarse, H, W) -> (B, c_out, H, W).
    """

    def __init__(self, down: nn.Module, block: Elan | ExtendedElan):
        super().__init__()
        self.down = down
        self.block = block

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        return self.block(torch.cat((self.down(fine), coarse), 1))


class _Parts:
    """Builds the modules of a design at a given scaling."""

    def __init__(self, design: Design, scaling: Scaling):
        self.design = design = design.deepened(scaling)
        self.scaling = scaling
        self.factor = design.transition_factor()
        self.stages_out = [self.channels(block.out) for block in design.stages]
        self.top_down = [self.channels(count) for count in (design.spp, *(up.out for up in design.ups))]
        self.bottom_up = [self.top_down[-1], *(self.channels(down.out) for down in design.downs)]

    def channels(self, count: float) -> int:
        """Scaled channels of a layer between the blocks."""
        return self.scaling.channels(round(count * self.factor))

    def stem(self) -> nn.Sequential:
        stem = nn.Sequential(ReOrg()) if self.design.reorg else nn.Sequential()
        c_in = 12 if self.design.reorg else 3
        for count, stride in self.design.stem:
            stem.append(ConvBnAct(c_in, self.channels(count), 3, stride, self.design.activation))
            c_in = self.channels(count)
        return stem

    def stages(self) -> nn.ModuleList:
        first, others, _ = self.design.transitions
        stages, c_in = nn.ModuleList(), self.channels(self.design.stem[-1][0])
        for i, block in enumerate(self.design.stages):
            down, entering = self._transition(others if i else first, c_in, block.enter)
            stages.append(nn.Sequential(down, self._block(self.design.backbone_elan, entering, block)))
            c_in = self.stages_out[i]
        return stages

    def spp(self) -> nn.Module:
        c_in, c_out, act = self.stages_out[-1], self.top_down[0], self.design.activation
        return LeanSppCsp(c_in, c_out, act) if self.design.lean_spp else SppCsp(c_in, c_out, act, "yolov7")

    def ups(self) -> nn.ModuleList:
        ups = nn.ModuleList()
        for i, block in enumerate(self.design.ups):
            enter = self.channels(block.enter)
            aggregate = self._block(self.design.neck_elan, 2 * enter, block)
            ups.append(Up(self.top_down[i], self.stages_out[-2 - i], enter, aggregate, self.design.activation))
        return ups

    def downs(self) -> nn.ModuleList:
        downs = nn.ModuleList()
        for i, block in enumerate(self.design.downs):
            down, entering = self._transition(self.design.transitions[2], self.bottom_up[i], block.enter)
            downs.append(Down(down, self._block(self.design.neck_elan, entering + self.top_down[-2 - i], block)))
        return downs

    def outs(self) -> nn.ModuleList:
        if self.design.rep:
            kind: Callable[[int, int], nn.Module] = partial(RepConv, activation=self.design.activation)
        else:
            kind = partial(ConvBnAct, kernel=3, activation=self.design.activation)
        return nn.ModuleList(map(kind, self.bottom_up, map(self.channels, self.design.outs)))

    def auxiliary_outs(self) -> nn.ModuleList:
        kind = partial(ConvBnAct, kernel=3, activation=self.design.activation)
        return nn.ModuleList(map(kind, self.top_down[::-1], map(self.channels, self.design.auxiliary)))

    def _block(self, kind: ElanKind, c_in: int, block: Block) -> Elan | ExtendedElan:
        width, growth = self.scaling.channels(block.width), self.scaling.channels(block.width // kind.shrink)
        sizes = (c_in, width, growth, self.channels(block.out), self.design.layers, kind.every)
        count = 2 if self.design.extended else 1
        blocks = [Elan(*sizes, activation=self.design.activation) for _ in range(count)]
        return ExtendedElan(*blocks) if self.design.extended else blocks[0]

    def _transition(self, kind: Transition, c_in: int, count: int) -> tuple[nn.Module, int]:
        """A downsampling module, and its output channels."""
        if kind == "pool":
            return nn.MaxPool2d(2), c_in
        act = self.design.activation
        if kind == "conv":
            return ConvBnAct(c_in, self.channels(count), 3, 2, act), self.channels(count)
        if kind == "mp-conv":
            half = self.channels(count / 2)
            return MpConv(c_in, half, act), 2 * half
        half = self.channels(count) // 2
        return DownC(c_in, half, act), 2 * half


class YoloV7(Body):
    """Backbone and neck of a design, with features for auxiliary heads if the design has them.

    The width multiplier scales all channels. The depth multiplier scales the chain of convolutions in each block, in
    whole steps between two concatenated outputs, and with it the channels between the blocks, following the paper's
    compound scaling (section 3.2): yolov7-w6 at depth 1.5 has the blocks and channels of yolov7-e6.
    """

    def __init__(self, design: Design, scaling: Scaling):
        super().__init__()
        parts = _Parts(design, scaling)
        self.stem = parts.stem()
        self.stages = parts.stages()
        self.spp = parts.spp()
        self.ups = parts.ups()  # coarse to fine
        self.downs = parts.downs()  # fine to coarse
        self.outs = parts.outs()
        self.auxiliary_outs: nn.ModuleList | None = parts.auxiliary_outs() if design.auxiliary else None
        self.out_channels = tuple(parts.channels(count) for count in design.outs)
        self.auxiliary_channels = tuple(parts.channels(count) for count in design.auxiliary)

    def forward(self, images: Tensor) -> list[Tensor]:
        features, _ = self._pyramid(images)
        return self._each(self.outs, features)

    def with_auxiliary(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The features of `forward` and the auxiliary ones, taken from the top-down path, from one pass."""
        if self.auxiliary_outs is None:
            raise ValueError("this body has no auxiliary features")
        features, branches = self._pyramid(images)
        return self._each(self.outs, features), self._each(self.auxiliary_outs, branches)

    def drop_auxiliary(self) -> None:
        """Remove the convolutions for the auxiliary features, in place."""
        super().drop_auxiliary()
        self.auxiliary_outs = None

    def _pyramid(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The bottom-up maps, and the outputs of the last branches of the top-down path; both finest first."""
        x = self.run(self.stem, images)
        laterals: list[Tensor] = []
        for stage in self.stages:
            x = self.run(stage, x)
            laterals.append(x)
        features = [self.run(self.spp, x)]
        branches = [features[0]]
        for up, lateral in zip(self.ups, laterals[-2::-1], strict=False):  # the first stages have no detection level
            merged, branch = self.run(up, features[0], lateral)
            features.insert(0, merged)
            branches.insert(0, branch)
        for level, down in enumerate(self.downs, start=1):
            features[level] = self.run(down, features[level - 1], features[level])
        return features, branches

    def _each(self, convolutions: nn.ModuleList, features: list[Tensor]) -> list[Tensor]:
        return [self.run(conv, x) for conv, x in zip(convolutions, features, strict=True)]
