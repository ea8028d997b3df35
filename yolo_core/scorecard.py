"""Compares published figures with ours: `python -m yolo_core.scorecard [--check]` writes docs/scorecard.md.

With --check nothing is written; if the file is stale, prints one line and exits with code 1.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from yolo_core.models import build_model, get_spec, model_names, published, scaling, yolov7
from yolo_core.models.blocks import CspOsa, silu
from yolo_core.models.cost import Cost, cost, deploy_cost, paper_cost, without_memory
from yolo_core.models.csp import CspStage, Residual
from yolo_core.models.detector import Detector, TrainingGraph
from yolo_core.models.spec import Scaling
from yolo_core.models.yolov7 import YoloV7

PAGE = Path(__file__).parents[1] / "docs" / "scorecard.md"
CLOSE = 1e-3  # of the published figure: allows the last digit to differ, e.g. by whether an addition is counted

Origin = Literal["counted", "derived", "measured"]
MARKS = ("reproduced", "derived", "needs a GPU", "contradicted")


@dataclass(frozen=True)
class Figure:
    """A published figure and ours, which is None if it takes training or timing to tell.

    origin: counted on a graph, derived by arithmetic from other published figures, or measured by the authors.
    """

    what: str
    printed: float | tuple[int, ...]
    here: float | tuple[int, ...] | None
    origin: Origin

    @property
    def digits(self) -> int:
        """Number of published decimals."""
        return len(str(self.printed).partition(".")[2]) if isinstance(self.printed, float) else 0

    @property
    def exact(self) -> bool:
        """Whether ours matches every published digit."""
        if isinstance(self.here, tuple) or self.here is None:
            return self.here == self.printed
        return round(self.here, self.digits) == self.printed

    @property
    def mark(self) -> str:
        if self.here is None:
            return "needs a GPU"
        if self.exact or abs(self.difference) <= CLOSE * abs(_number(self.printed)):
            return "reproduced" if self.origin == "counted" else "derived"
        return "**contradicted**"

    @property
    def difference(self) -> float:
        return _number(self.here) - _number(self.printed)

    def cells(self) -> tuple[str, ...]:
        """Published figure, ours, difference, mark."""
        if isinstance(self.printed, tuple):
            here = "-".join(map(str, self.here)) if isinstance(self.here, tuple) else ""
            return "-".join(map(str, self.printed)), here, "", self.mark
        printed = f"{self.printed:.{self.digits}f}"
        if self.here is None:
            return printed, "", "", self.mark
        digits = min(self.digits + 1, 7)
        difference = f"{self.difference:+.{digits}f}"
        return printed, f"{_number(self.here):.{digits}f}", "0" if float(difference) == 0 else difference, self.mark


def _number(value: float | tuple[int, ...] | None) -> float:
    return float("nan") if value is None or isinstance(value, tuple) else value


@dataclass(frozen=True)
class Size:
    """A published size: parameters in millions and GFLOPs, either of which may be missing."""

    name: str
    params: Figure | None
    gflops: Figure | None

    @property
    def figures(self) -> list[Figure]:
        return [figure for figure in (self.params, self.gflops) if figure is not None]

    def cells(self) -> tuple[str, ...]:
        params, gflops = (figure.cells()[:3] if figure else ("", "", "") for figure in (self.params, self.gflops))
        marks = {figure.mark for figure in self.figures}
        mark = marks.pop() if len(marks) == 1 else " / ".join(figure.mark for figure in self.figures)
        return (self.name, *params, *gflops, mark)


@dataclass(frozen=True)
class Section:
    title: str
    text: str
    rows: Sequence[Figure] | Sequence[Size]

    @property
    def figures(self) -> list[Figure]:
        return [figure for row in self.rows for figure in (row.figures if isinstance(row, Size) else [row])]

    def table(self) -> str:
        if isinstance(self.rows[0], Size):
            head = ("graph", "params M", "here", "difference", "GFLOPs", "here", "difference", "")
        else:
            head = ("figure", "printed", "here", "difference", "")
        return _table(head, [row.cells() if isinstance(row, Size) else (row.what, *row.cells()) for row in self.rows])


# --- Counting ---------------------------------------------------------------------------------------------------------


@cache
def _model(name: str, width: float = 1.0, depth: float = 1.0) -> Detector:
    with torch.device("meta"):
        return build_model(name, width=width, depth=depth)


@cache
def _printed_graph_cost(name: str, size: int) -> Cost:
    """The cost of the graph whose size is published for this model."""
    model = _model(name)
    if model.spec.published.with_auxiliary:
        return cost(TrainingGraph(model), size)
    return paper_cost(model, size)


def _size(name: str, params_m: float | None, gflops: float | None, counted: Cost) -> Size:
    return Size(
        name,
        None if params_m is None else Figure(f"{name}, parameters", params_m, counted.params / 1e6, "counted"),
        None if gflops is None else Figure(f"{name}, GFLOPs", gflops, counted.gflops, "counted"),
    )


def _of_spec(name: str) -> Size:
    spec = get_spec(name)
    counted = _printed_graph_cost(name, spec.native_size)
    return _size(f"{name}, {spec.native_size} px", spec.published.params_m, spec.published.gflops, counted)


def _is_of_table(name: str, table: int) -> bool:
    return f"table {table}" in get_spec(name).published.source


def models() -> Section:
    specs = [get_spec(n) for n in model_names() if not _is_of_table(n, 8) and not _is_of_table(n, 9)]
    rows = [_of_spec(spec.name) for spec in specs if spec.published.params_m is not None]
    rows.append(_size("yolov4-csp, 512 px", None, published.CSP_512_GFLOPS, _printed_graph_cost("yolov4-csp", 512)))
    for name, params_m in published.TRAINING_PARAMS_M.items():
        rows.append(_size(f"{name} with auxiliary heads", params_m, None, cost(_model(name), 1280)))
    for name, params_m in published.UNFOLDED_PARAMS_M.items():
        rows.append(_size(f"{name} before folding", params_m, None, cost(_model(name), 640)))
    for name, size in published.WITHOUT_AUXILIARY.items():
        graph = without_memory(_model(name))
        graph.drop_auxiliary()
        rows.append(_size(f"{name} without auxiliary heads", size.params_m, size.gflops, cost(graph, 1280)))
    text = (
        "Counted on the graph that the paper counts: as built for Scaled-YOLOv4, folded and with the additions of\n"
        "biases for YOLOv7; yolov7-d6 is published with its auxiliary heads."
    )
    return Section("Model sizes", text, rows)


def csp_ablation() -> Section:
    names = [n for n in model_names() if _is_of_table(n, 8) and n.endswith("-mish")]
    text = (
        "2011.08036, table 8: plain (D53, FPN, PAN) against cross-stage partial (CD53s, CFPN, CPAN) backbone and\n"
        "neck. The activation, leaky or Mish, does not change a size."
    )
    return Section("Cross-stage partial ablation, 608 px", text, [_of_spec(name) for name in names])


def tiny_ablation() -> Section:
    names = [n for n in model_names() if _is_of_table(n, 9)]
    text = (
        "The stage of yolov4-tiny against others of the same cost; 2011.08036, table 9.\n"
        "COSA-axbx: a of four halves cross a stage, b are mixed."
    )
    return Section("Tiny ablation, 416 px", text, [_of_spec(name) for name in names])


def compound() -> Section:
    """The base is yolov7-x with four convolutions per block instead of six."""
    shallow = 4 / 6
    deep = replace(yolov7.V7_X, layers=8, counted_at=8)  # twice as deep, transitions as in the base
    with torch.device("meta"):
        body = YoloV7(deep, Scaling())
        deep_model = Detector(get_spec("yolov7-x"), body, num_classes=80, scaling=Scaling())
    variants = (
        (published.COMPOUND_BASE, _model("yolov7-x", 1.0, shallow)),
        (published.COMPOUND_WIDTH, _model("yolov7-x", 1.25, shallow)),
        (published.COMPOUND_DEPTH, deep_model),
    )
    rows = [_size(size.what, size.params_m, size.gflops, deploy_cost(model, 640)) for size, model in variants]
    text = (
        "2207.02696, table 3: a base scaled in width or in depth; scaled in both, as its concatenations require,\n"
        "it is yolov7-x, above. The base is yolov7-x with four convolutions per block instead of six."
    )
    return Section("Compound scaling, 640 px", text, rows)


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
    osa = next(m for m in _model("yolov4-tiny").modules() if isinstance(m, CspOsa))
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
        stem = next(m for m in _model(name).modules() if isinstance(m, nn.Conv2d))
        narrow = next(m for m in _model("yolov4-csp").modules() if isinstance(m, nn.Conv2d))
        rows.append(Figure(f"{name}, width", width, stem.out_channels / narrow.out_channels, "counted"))
    text = (
        "Rules of 2011.08036, sections 3 and 4, read off the models. The formulas for convolutional input/output\n"
        "make a split inside the block (PCB) better than one around it (CSP) where kg > b; the prose says b/2."
    )
    return Section("Depth, width and the tiny rules", text, rows)


def _repeats(name: str) -> tuple[int, ...]:
    stages = _model(name).body.get_submodule("stages").children()
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


# --- Figures that need a GPU ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """Published figures that need training or timing: the cells of a row, and how many figures it has."""

    cells: tuple[str, ...]
    figures: int


def _accuracy() -> Iterator[Measured]:
    own = [
        published.Accuracy(f"{spec.name}, {spec.native_size} px", p.ap, p.ap50, p.ap75, p.source)
        for spec in map(get_spec, _once())
        if (p := spec.published).ap is not None
    ]
    compounds = [
        published.Accuracy(f"compound scaling, {what}", ap, source=f"{published.YOLOV7}, table 3")
        for what, ap in published.COMPOUND_AP.items()
    ]
    for row in (*own, *published.OTHER_ACCURACY, *compounds):
        values = (row.ap, row.ap50, row.ap75)
        cells = tuple("" if value is None else f"{value:.1f}" for value in values)
        yield Measured((row.what, *cells, row.source), sum(value is not None for value in values))


def _once() -> list[str]:
    """The models, without those whose figures are published under another name too."""
    twice = {"yolov4-csp-leaky"}  # a row of table 8
    return [name for name in model_names() if name not in twice]


def _speeds() -> Iterator[Measured]:
    for s in published.printed_speeds():
        how = ", ".join(part for part in (f"batch {s.batch}", s.how) if part)
        yield Measured((s.model, str(s.size), s.device, how, f"{s.fps:g}"), 1)


# --- The page ---------------------------------------------------------------------------------------------------------

INTRODUCTION = """# Scorecard

The papers' figures next to those of this repository's models. `python -m yolo_core.scorecard` generates this page from
the model specifications, `yolo_core/models/published.py` and counting; do not edit it.

Scaled-YOLOv4 is arXiv 2011.08036, YOLOv7 is 2207.02696. COCO, 80 classes; a multiply-add is two operations.

- reproduced: counted, and the same in the printed digits or within 0.1 % of the figure;
- derived: follows by arithmetic from other figures, to the same precision;
- needs a GPU: requires training or timing;
- contradicted: counted or derived, and further off."""


def page() -> str:
    """The page as Markdown; deterministic."""
    sections = [
        models(),
        csp_ablation(),
        tiny_ablation(),
        compound(),
        layers(),
        tiny_rules(),
        gpu_use(),
    ]
    figures = [figure for section in sections for figure in section.figures]
    accuracy, speeds = list(_accuracy()), list(_speeds())
    marks = Counter(figure.mark.strip("*") for figure in figures)
    marks["needs a GPU"] += sum(row.figures for row in (*accuracy, *speeds))
    exact = sum(figure.exact for figure in figures if figure.mark == "reproduced")
    parts = [INTRODUCTION, _summary(marks, exact, [f for f in figures if f.mark == "**contradicted**"])]
    parts += [f"## {section.title}\n\n{section.text}\n\n{section.table()}" for section in sections]
    parts.append(
        "## Accuracy\n\nCOCO AP in percent, as published; all of it needs a GPU. 2011.08036 differs by version.\n\n"
        + _table(("of", "AP", "AP50", "AP75", "source"), [row.cells for row in accuracy])
    )
    parts.append(
        "## Speed\n\nImages/s, as published; all of it needs the GPU named.\n\n"
        + _table(("model", "px", "device", "how", "images/s"), [row.cells for row in speeds])
    )
    return "\n\n".join(parts) + "\n"


def _summary(marks: Counter[str], exact: int, contradicted: list[Figure]) -> str:
    rows = [(mark, str(marks[mark])) for mark in MARKS]
    exactly = f"{exact} of the {marks['reproduced']} reproduced figures are the same in every printed digit."
    off = [
        f"- {f.what}: {f.cells()[0]} printed, {f.cells()[1]} here ({100 * f.difference / _number(f.printed):+.1f} %)"
        for f in contradicted
    ]
    return "\n".join((_table(("mark", "figures"), rows), "", exactly, "", "Contradicted:", "", *off))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m yolo_core.scorecard", description="Write docs/scorecard.md.")
    parser.add_argument("--check", action="store_true", help="only check whether the committed page is current")
    parser.add_argument("--out", type=Path, default=PAGE, help="file to write or to check")
    given = parser.parse_args(arguments)
    text = page()
    if not given.check:
        given.out.write_text(text, encoding="utf-8")
        return 0
    if given.out.exists() and given.out.read_text(encoding="utf-8") == text:
        return 0
    print(f"{given.out}: stale; run `python -m yolo_core.scorecard` and commit the file", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
