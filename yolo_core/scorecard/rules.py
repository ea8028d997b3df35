"""The papers' rules and formulas: the cost of single layers, depth and width, use of the GPU."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from yolo_core.models import get_spec, published, scaling
from yolo_core.models.blocks import CspOsa, silu
from yolo_core.models.cost import cost
from yolo_core.models.csp import CspStage, Residual
from yolo_core.scorecard.figures import Figure, Section
from yolo_core.scorecard.sizes import model_of


class _Channels(nn.Module):
    """Turns an image into any number of channels, at no cost."""

    def __init__(self, count: int):
        super().__init__()
        self.count = count

    def forward(self, images: Tensor) -> Tensor:
        return images[:, :1].expand(-1, self.count, -1, -1)


BASE = 128  # channels b of the layers to count; the grouped convolution needs a multiple of 64


def _coefficient(part: nn.Module, c_in: int, cells: int) -> float:
    """Multiply-adds of a module on a 32 x 32 input, in units of b^2 x output cells."""
    counted = cost(nn.Sequential(_Channels(c_in), part), 32)
    return counted.gflops * 1e9 / 2 / cells / BASE**2


def _row_of(channels: Sequence[int], kernels: Sequence[int], groups: int) -> nn.Module:
    return nn.Sequential(
        *(
            nn.Conv2d(a, b, kernel, padding=kernel // 2, groups=groups if kernel > 1 else 1, bias=False)
            for a, b, kernel in zip(channels, channels[1:], kernels, strict=False)
        )
    )


_B = BASE
# Channels of the full layer, channels inside a CSP stage, and groups of the 3x3 convolution.
LAYER_CHANNELS = {
    "ResNet": ((_B, _B // 4, _B // 4, _B), (_B // 2, _B // 4, _B // 4, _B // 2), 1),
    "ResNeXt": ((_B, _B // 2, _B // 2, _B), (_B // 2, _B // 2, _B // 2, _B // 2), 32),
    "Darknet": ((_B, _B // 2, _B), (_B // 2, _B // 2, _B // 2), 1),
}


def layers() -> Section:
    rows = []
    for name, (full, partial, groups) in LAYER_CHANNELS.items():
        layer = scaling.LAYERS[name]
        for what, channels, printed in (
            (f"{name} layer, w h k b^2 x", full, published.LAYER_COEFFICIENT[name]),
            (f"{name} layer in a partial stage, w h k b^2 x", partial, published.PARTIAL_COEFFICIENT[name]),
        ):
            counted = _coefficient(_row_of(channels, (1, 3, 1), groups), channels[0], 32 * 32)
            rows.append(Figure(what, printed, counted, "counted"))
        saving = 100 * float(scaling.asymptotic_csp_saving(layer))
        rows.append(Figure(f"{name}, saving of deep stages %", published.CSP_SAVING_PERCENT[name], saving, "derived"))
        even = float(scaling.csp_break_even(layer))
        rows.append(Figure(f"{name}, break-even k", published.CSP_BREAK_EVEN[name], even, "derived"))
    rows += _stage_rows()
    text = (
        "2011.08036, tables 1 and 2, counted on such layers, and what follows from them. A stage as built has\n"
        "1x1 convolutions into both halves (1/2 each), after one (1/4), out of both (1), and 9/2 of downsampling."
    )
    return Section("Layers and their cross-stage partial form", text, rows)


def _stage_rows() -> Iterator[Figure]:
    with torch.device("meta"):
        stage = CspStage(BASE // 2, BASE, 1, silu, "darknet")
        down = _coefficient(nn.Sequential(stage.down), BASE // 2, 16 * 16)
        whole = _coefficient(stage, BASE // 2, 16 * 16) - float(scaling.DARKNET.partial)
    yield Figure("transitions of a partial stage, w h b^2 x", published.CSP_TRANSITIONS, whole - down, "counted")
    yield Figure("the same with its downsampling, w h b^2 x", published.CSP_STAGE_CONSTANT, whole, "counted")


def tiny_rules() -> Section:
    osa = next(m for m in model_of("yolov4-tiny").modules() if isinstance(m, CspOsa))
    first = osa.layers[0].get_submodule("conv").get_parameter("weight")
    base = osa.enter.conv.out_channels
    grown = [kg for kg in range(1, 2 * BASE) if scaling.partial_advice(BASE, kg, 1).by_formula]
    rows = [
        Figure("growth of yolov4-tiny's blocks, b x", published.TINY_GROWTH, len(first) / base, "counted"),
        Figure("3x3 layers of yolov4-tiny's blocks", published.TINY_LAYERS, 1 + len(osa.layers), "counted"),
        Figure("PCB beats CSP where kg exceeds b x", published.PCB_THRESHOLD, (grown[0] - 1) / BASE, "derived"),
    ]
    for name, repeats in published.REPEATS.items():
        rows.append(Figure(f"{name}, residual blocks", repeats, _repeats(name), "counted"))
    for name, width in published.WIDTH.items():
        stem = next(m for m in model_of(name).modules() if isinstance(m, nn.Conv2d))
        narrow = next(m for m in model_of("yolov4-csp").modules() if isinstance(m, nn.Conv2d))
        rows.append(Figure(f"{name}, width", width, stem.out_channels / narrow.out_channels, "counted"))
    text = (
        "Rules of 2011.08036, sections 3 and 4, read off the models. The formulas for convolutional input/output\n"
        "make a split inside the block (PCB) better than one around it (CSP) where kg > b; the prose says b/2."
    )
    return Section("Depth, width and the tiny rules", text, rows)


def _repeats(name: str) -> tuple[int, ...]:
    stages = model_of(name).body.get_submodule("stages").children()
    return tuple(sum(isinstance(m, Residual) for m in stage.modules()) for stage in stages)


def gpu_use() -> Section:
    use = published.GPU_USE
    csp, other = use["yolov4-csp"], use["EfficientDet-D3"]
    whole = round(get_spec("yolov4-csp").published.gflops or 0)
    peak = published.PEAK_TFLOPS[published.V100]
    rows = [Figure("yolov4-csp, images/s at the peak", csp.ideal_fps, peak * 1e3 / whole, "derived")]
    rows += [
        Figure(f"{name}, utilisation %", u.percent, 100 * u.fps / u.ideal_fps, "derived") for name, u in use.items()
    ]
    ratio = (csp.fps / csp.ideal_fps) / (other.fps / other.ideal_fps)
    rows.append(Figure("ratio of the two", published.GPU_USE_RATIO, ratio, "derived"))
    for what, printed in published.SPEED_RATIO.items():
        here = csp.fps / other.fps if what == "yolov4-csp / D3" else None
        rows.append(Figure(f"speed, {what}", printed, here, "derived" if here else "measured"))
    text = (
        f"Images/s at batch 1 against those that a V100's peak of {peak} TFLOP/s would allow at {whole} GFLOPs.\n"
        "EfficientDet's own speed is published for D3 alone."
    )
    return Section("GPU utilisation", text, rows)
