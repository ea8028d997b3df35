"""Chooses the model, input size, depth and width for a latency budget, in the order of arXiv 2011.08036, section 3.

Input size and number of stages grow first and together, because they cover both large objects and detail; the remaining
time goes to depth, then to width. Costs are counted on the graphs; latency is predicted by a roofline model.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import cache

import torch

from yolo_core.errors import UserError
from yolo_core.models.cost import Footprint, footprint, kept_bytes
from yolo_core.models.detector import Detector
from yolo_core.models.roofline import Roofline
from yolo_core.models.zoo import build_model, get_spec

GIB = 2**30
MIN_SIZE = 0.5  # smallest input size of a tier, as a fraction of its first native size
DEPTHS = (0.33, 0.5, 0.67, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)
WIDTHS = (0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0, 1.125, 1.25, 1.5)
COMPACT = ((0.75, 0.67), (0.5, 0.33), (0.25, 0.33))  # (width, depth), tried in order if no published graph fits

# Each tier goes from small to large inputs; each rung starts with its cheapest graph, followed by deeper and wider
# published ones. A tier is used only if nothing in the next one fits.
Tier = tuple[tuple[str, ...], ...]
FAMILIES: dict[str, tuple[Tier, ...]] = {
    "yolov4": (
        (("yolov4-tiny",), ("yolov4-tiny-3l",)),
        (("yolov4-csp",), ("yolov4-p5",), ("yolov4-p6",), ("yolov4-p7",)),
    ),
    "yolov7": (
        (("yolov7-tiny",), ("yolov7-tiny-silu",)),
        (("yolov7", "yolov7-x"), ("yolov7-w6", "yolov7-e6", "yolov7-d6", "yolov7-e6e")),
    ),
}


# Fields of `Limits`, as named in error messages.
LIMIT_NAMES = {
    "latency_ms": "latency (ms)",
    "params_m": "parameters (millions)",
    "memory_gib": "memory (GiB)",
    "training_gib": "training memory (GiB)",
    "training_batch": "training batch",
}


@dataclass(frozen=True)
class Limits:
    """The budget for a candidate; None means no limit.

    latency_ms: inference at batch 1. params_m: millions. memory_gib: weights and peak activations of inference at
    batch 1, in the roofline's precision. training_gib: per device, see `Candidate.training_gib`.
    Raises UserError for a limit that is not above 0.
    """

    latency_ms: float
    params_m: float | None = None
    memory_gib: float | None = None
    training_gib: float | None = None
    training_batch: int = 1

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not 0 < value < math.inf:
                raise UserError(f"{LIMIT_NAMES[field.name]}: {value:g}; must be above 0")


@dataclass(frozen=True)
class Candidate:
    """A graph at an input size, with its cost.

    training_gib: float32 weights, gradients, momentum and EMA, plus the activations of a batch stored for the backward
    pass without autocast; None if there is no limit on it.
    """

    model: str
    width: float
    depth: float
    graph: Footprint
    latency_ms: float
    memory_gib: float
    training_gib: float | None

    @property
    def size(self) -> int:
        return self.graph.size

    @property
    def params_m(self) -> float:
        return self.graph.params / 1e6

    @property
    def stages(self) -> int:
        """Number of times the input is halved up to the coarsest level."""
        return get_spec(self.model).input_stride.bit_length() - 1

    def __str__(self) -> str:
        scaled = "".join(
            f", {name} {value:g}" for name, value in (("width", self.width), ("depth", self.depth)) if value != 1
        )
        return f"{self.model} at {self.size} px{scaled}"


@dataclass(frozen=True)
class Excess:
    """A limit, and a candidate's value for it."""

    limit: str
    unit: str
    taken: float
    allowed: float

    @property
    def ratio(self) -> float:
        return self.taken / self.allowed

    def __str__(self) -> str:
        return f"{self.limit} {_short(self.taken)} {self.unit}, limit {self.allowed:g}"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


@dataclass(frozen=True)
class Row:
    """A candidate considered in a step, and why it was kept or dropped."""

    step: str
    candidate: Candidate
    kept: bool
    reason: str


@dataclass(frozen=True)
class Plan:
    """training_gib: memory to train the choice, see `Candidate`."""

    choice: Candidate
    training_gib: float
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Counters:
    """Functions that count a graph's figures; arguments: model, width, depth, classes.

    inference: the footprint at native size. training: activation bytes per image at native size.
    """

    inference: Callable[[str, float, float, int], Footprint]
    training: Callable[[str, float, float, int], int]


@cache
def count(model: str, width: float = 1.0, depth: float = 1.0, classes: int = 80) -> Footprint:
    """The inference footprint of a model at its native size."""
    return footprint(_shapes(model, width, depth, classes), get_spec(model).native_size)


@cache
def count_training(model: str, width: float, depth: float, classes: int) -> int:
    """Activation bytes per image when training a model at its native size."""
    return kept_bytes(_shapes(model, width, depth, classes), get_spec(model).native_size)


def _shapes(model: str, width: float, depth: float, classes: int) -> Detector:
    with torch.device("meta"):
        return build_model(model, classes, width, depth)


COUNTED = Counters(count, count_training)


def plan(family: str, limits: Limits, roofline: Roofline, *, classes: int = 80, counters: Counters = COUNTED) -> Plan:
    """The choice within these limits, and the steps that led to it.

    Raises UserError for an unknown family, or if nothing fits, naming the nearest candidate and the limit it exceeds.
    """
    return _Planner(tiers_of(family), limits, roofline, classes, counters).run()


def tiers_of(family: str) -> tuple[Tier, ...]:
    """The tiers of a family; UserError if it is unknown."""
    if family not in FAMILIES:
        raise UserError(f"family: {family!r} is not one of {', '.join(FAMILIES)}")
    return FAMILIES[family]


class _Planner:
    def __init__(
        self, tiers: tuple[Tier, ...], limits: Limits, roofline: Roofline, classes: int, counters: Counters
    ) -> None:
        self.tiers = tiers
        self.limits = limits
        self.roofline = roofline
        self.classes = classes
        self.counters = counters
        self.rows: list[Row] = []
        self.nearest: tuple[float, Candidate, Excess] | None = None

    def run(self) -> Plan:
        for width, depth in ((1.0, 1.0), *COMPACT):
            start = self._size_and_stages(width, depth)
            if start is not None:
                choice = self._wider(self._deeper(self._published_siblings(start)))
                training = self._training_gib(choice.model, choice.width, choice.depth, choice.graph)
                return Plan(choice, training, tuple(self.rows))
        assert self.nearest is not None
        _, candidate, excess = self.nearest
        raise UserError(
            f"nothing fits: the nearest is {candidate}, limited by {excess}: "
            f"{_short(excess.taken - excess.allowed)} {excess.unit} over, {_short(excess.ratio)} times the limit"
        )

    def _size_and_stages(self, width: float, depth: float) -> Candidate | None:
        """Step 1: the largest input that fits, with its stages, in the last tier that has one."""
        fitting: list[tuple[int, Candidate]] = []
        for tier_number, tier in enumerate(self.tiers):
            for model, sizes in _rungs(tier):
                candidates = [self._candidate(model, size, width, depth) for size in sizes]
                kept = [c for c in candidates if not self._excesses(c)]
                fitting += [(tier_number, c) for c in kept]
                self._note_rung(candidates, kept)
                if not kept:
                    break  # higher rungs cost more in every respect
        if not fitting:
            return None
        _, best = max(fitting, key=lambda item: (item[0], item[1].size, item[1].stages))
        self.rows = [
            Row(row.step, row.candidate, row.candidate == best, _why(row, best)) if row.kept else row
            for row in self.rows
        ]
        return best

    def _note_rung(self, candidates: list[Candidate], kept: list[Candidate]) -> None:
        """Report the largest size of a rung that fits, and the next one up, which shows why it cannot be larger."""
        largest = kept[-1] if kept else None
        larger = [c for c in candidates if largest is None or c.size > largest.size]
        if largest is not None:
            self.rows.append(Row("size, stages", largest, True, ""))
        if larger:
            self._drop("size, stages", larger[0])

    def _published_siblings(self, best: Candidate) -> Candidate:
        """Step 2: the published graphs at the same input size, with depth and width chosen by the authors."""
        rung = next(rung for tier in self.tiers for rung in tier if rung[0] == best.model)
        for model in rung[1:]:
            best = self._better("published", best, self._candidate(model, best.size, best.width, best.depth))
        return best

    def _deeper(self, best: Candidate) -> Candidate:
        for depth in (d for d in DEPTHS if d > best.depth):
            candidate = self._candidate(best.model, best.size, best.width, depth)
            if candidate.graph == best.graph:
                continue  # rounded to the same number of repeats
            best, before = self._better("depth", best, candidate), best
            if best is before:
                break
        return best

    def _wider(self, best: Candidate) -> Candidate:
        for width in (w for w in WIDTHS if w > best.width):
            best, before = self._better("width", best, self._candidate(best.model, best.size, width, best.depth)), best
            if best is before:
                break
        return best

    def _better(self, step: str, best: Candidate, candidate: Candidate) -> Candidate:
        """The candidate if it fits, otherwise the best so far."""
        if self._excesses(candidate):
            self._drop(step, candidate)
            return best
        self.rows.append(Row(step, candidate, True, "fits as well"))
        return candidate

    def _drop(self, step: str, candidate: Candidate) -> None:
        reason = "; ".join(str(excess) for excess in self._excesses(candidate))
        self.rows.append(Row(step, candidate, False, reason))

    def _candidate(self, model: str, size: int, width: float, depth: float) -> Candidate:
        graph = self.counters.inference(model, width, depth, self.classes).at(size)
        training = None if self.limits.training_gib is None else self._training_gib(model, width, depth, graph)
        return Candidate(
            model,
            width,
            depth,
            graph,
            latency_ms=self.roofline.ms(graph),
            memory_gib=(graph.weight_bytes + graph.peak_bytes) * self.roofline.number_bytes / 4 / GIB,
            training_gib=training,
        )

    def _training_gib(self, model: str, width: float, depth: float, graph: Footprint) -> float:
        native = self.counters.training(model, width, depth, self.classes)
        kept = native * graph.size**2 / get_spec(model).native_size ** 2
        states = 4 * 4 * graph.params  # weights, gradients, momentum, EMA; four bytes each
        return (states + self.limits.training_batch * kept) / GIB

    def _excesses(self, candidate: Candidate) -> list[Excess]:
        """The limits that the candidate exceeds; also tracks the candidate nearest to meeting all of them."""
        pairs = (
            ("latency", "ms", candidate.latency_ms, self.limits.latency_ms),
            ("parameters", "M", candidate.params_m, self.limits.params_m),
            ("inference memory", "GiB", candidate.memory_gib, self.limits.memory_gib),
            ("training memory", "GiB", candidate.training_gib, self.limits.training_gib),
        )
        every = [
            Excess(name, unit, taken, allowed)
            for name, unit, taken, allowed in pairs
            if taken is not None and allowed is not None
        ]
        worst = max(every, key=lambda excess: excess.ratio)
        if self.nearest is None or worst.ratio < self.nearest[0]:
            self.nearest = worst.ratio, candidate, worst
        return [excess for excess in every if excess.ratio > 1]


def _rungs(tier: Tier) -> Iterator[tuple[str, list[int]]]:
    """The cheapest graph of each rung, with its sizes: from just above the previous rung's up to its native size.

    Those of the first rung start at `MIN_SIZE` of its native size.
    """
    above = 0
    for rung in tier:
        spec = get_spec(rung[0])
        stride = spec.input_stride
        least = above + 1 if above else MIN_SIZE * spec.native_size
        yield rung[0], [size for size in range(stride, spec.native_size + 1, stride) if size >= least]
        above = spec.native_size


def _why(row: Row, best: Candidate) -> str:
    if row.candidate == best:
        return "the largest input that fits"
    if row.candidate.size > best.size:
        return f"fits, but {best.model} is the larger model"
    return f"fits, but {best.model} takes a larger input"
