"""The arithmetic of model scaling (arXiv 2011.08036, sections 3 and 4): the cost of size, depth, width and stages.

Symbols as in the paper: a map of w x h cells, b base channels, k layers, g channels added by each layer (growth).
Costs are multiply-adds of the convolutions, coefficients exact fractions. Nothing here builds a model. The planner and
the scorecard use some of it; the rest is for reference.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal


@dataclass(frozen=True)
class Layer:
    """A residual layer with b channels; coefficients in units of w h b^2 (tables 1 and 2).

    full: the layer itself. partial: the same layer on half of the channels, in a cross-stage partial (CSP) stage.
    """

    full: Fraction
    partial: Fraction


# 1x1 b->b/4, 3x3 b/4->b/4, 1x1 b/4->b: 1/4 + 9/16 + 1/4. Partial: b/2->b/4, b/4->b/4, b/4->b/2: 1/8 + 9/16 + 1/8.
RESNET = Layer(Fraction(17, 16), Fraction(13, 16))
# 1x1 b->b/2, 3x3 in 32 groups, 1x1 b/2->b: 1/2 + 9/128 + 1/2. Partial: same 3x3 between b/2->b/2: 1/4 + 9/128 + 1/4.
RESNEXT = Layer(Fraction(137, 128), Fraction(73, 128))
# 1x1 b->b/2, 3x3 b/2->b: 1/2 + 9/2. Partial, without the bottleneck: 1x1 and 3x3 b/2->b/2: 1/4 + 9/4.
DARKNET = Layer(Fraction(5), Fraction(5, 2))
LAYERS = {"ResNet": RESNET, "ResNeXt": RESNEXT, "Darknet": DARKNET}

# Per stage, at any depth: 1x1 b->b/2 before the layers, b/2->b/2 after them. Stages as built have more: see
# docs/scorecard.md.
CSP_TRANSITIONS = Fraction(3, 4)
CSP_DOWNSAMPLING = Fraction(9, 4)  # the strided 3x3 convolution of a Darknet stage, as published (section 4.1)


def layer_cost(layer: Layer, w: int, h: int, k: int, b: int) -> Fraction:
    """Multiply-adds of k layers (table 1)."""
    return w * h * k * b**2 * layer.full


def csp_cost(layer: Layer, w: int, h: int, k: int, b: int) -> Fraction:
    """Multiply-adds of a CSP stage of k layers (table 2)."""
    return w * h * b**2 * (CSP_TRANSITIONS + k * layer.partial)


def scaled_cost(cost: float, size: float = 1, depth: float = 1, width: float = 1) -> float:
    """`cost` after scaling input size, depth and width by these factors: size^2 x depth x width^2 (table 1)."""
    return cost * size**2 * depth * width**2


def csp_saving(layer: Layer, k: int) -> Fraction:
    """Fraction of multiply-adds saved by the CSP form of a stage of k layers; negative if it costs more."""
    return 1 - (CSP_TRANSITIONS + k * layer.partial) / (k * layer.full)


def asymptotic_csp_saving(layer: Layer) -> Fraction:
    """The limit of `csp_saving` for deep stages: 23.5, 46.7 and 50.0 % (section 3)."""
    return 1 - layer.partial / layer.full


def csp_break_even(layer: Layer) -> Fraction:
    """Number of layers at which the CSP form costs as much as the plain one (below, more): 3, 1.5 and 0.3."""
    return CSP_TRANSITIONS / (layer.full - layer.partial)


def csp_darknet_stage_cost(w: int, h: int, k: int, b: int) -> Fraction:
    """Multiply-adds of a CSP Darknet stage, including its downsampling (section 4.1).

    Cheaper than k plain Darknet layers from k = 2 (equal at k = 1.2), which is why the first stage of yolov4-csp, with
    one layer, is plain.
    """
    return w * h * b**2 * (CSP_DOWNSAMPLING + CSP_TRANSITIONS + k * DARKNET.partial)


def densenet_cost(w: int, h: int, b: int, g: int, k: int) -> int:
    """Multiply-adds of k densely connected layers, per unit of kernel area (table 3)."""
    return w * h * g * b * k + w * h * g**2 * k * (k - 1) // 2


def osanet_cost(w: int, h: int, b: int, g: int, k: int) -> int:
    """Multiply-adds of k one-shot-aggregated layers, per unit of kernel area (table 3)."""
    return w * h * b * g + w * h * g**2 * (k - 1)


def partial_split(b: int, g: int, k: int, bus: int = 1) -> int:
    """Channels on one side of the split in a partial computational block (PCB, section 3.3).

    Half of the b + k g concatenated channels, rounded up to a multiple of the bus width `bus`, in channels.
    """
    return math.ceil(Fraction(b + k * g, 2 * bus)) * bus


def memory_access_cost(w: int, h: int, c_in: int, c_out: int, kernel_area: int) -> int:
    """Elements that a convolution reads and writes: both maps and the weights (section 3).

    For a fixed product of c_in and c_out, hence fixed multiply-adds, it is lowest when they are equal.
    """
    return w * h * (c_in + c_out) + kernel_area * c_in * c_out


Wiring = Literal["OSA", "CSP", "PCB"]


def convolutional_io(wiring: Wiring, b: int, g: int, k: int) -> Fraction:
    """Convolutional input/output of a block per cell, the paper's proxy for memory traffic.

    OSA: one-shot aggregation; CSP: with a cross-stage bypass; PCB: split inside the computational block.
    """
    grown = k * g
    match wiring:
        case "OSA":
            return Fraction(b * g + (k - 1) * g**2) + Fraction((b + grown) ** 2, 2)
        case "CSP":
            return Fraction(k * g**2 + grown**2)
        case "PCB":
            return k * g**2 + Fraction((b + grown) ** 2, 4)


def least_io(b: int, g: int, k: int) -> Wiring:
    """The wiring with the lowest `convolutional_io`; ties go to the simpler one."""
    wirings: tuple[Wiring, ...] = ("OSA", "CSP", "PCB")
    return min(wirings, key=lambda wiring: convolutional_io(wiring, b, g, k))


@dataclass(frozen=True)
class PartialAdvice:
    """Whether to split inside the computational block, according to the paper's formulas and to its text."""

    by_formula: bool
    by_prose: bool

    @property
    def disagree(self) -> bool:
        return self.by_formula != self.by_prose


def partial_advice(b: int, g: int, k: int) -> PartialAdvice:
    """PCB versus CSP, where the paper contradicts itself (section 3).

    kg^2 + (b + kg)^2 / 4 < kg^2 + (kg)^2 holds if b + kg < 2 kg, so the formulas require kg > b. The text says
    kg > b / 2. For b / 2 < kg <= b the two disagree, and the formulas, which can be checked, favour CSP.
    """
    return PartialAdvice(
        by_formula=convolutional_io("PCB", b, g, k) < convolutional_io("CSP", b, g, k), by_prose=2 * k * g > b
    )


def receptive_field(layers: Iterable[tuple[int, int]]) -> int:
    """Receptive field of an output cell after a chain of (kernel, stride) layers: pixels along one side.

    Independent of input size and width. A layer with kernel n adds (n - 1) x the stride before it; a stage that halves
    the map doubles what every later layer adds.
    """
    field = stride = 1
    for kernel, step in layers:
        field += (kernel - 1) * stride
        stride *= step
    return field
