"""Roofline model of a device: predicts the inference time of a graph from its footprint."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from yolo_core.models.cost import Footprint


@dataclass(frozen=True)
class Measurement:
    """A measured inference time of one image."""

    what: str
    """What was run, human-readable."""

    footprint: Footprint
    """Footprint of the graph that was run."""

    ms: float
    """Inference time, ms."""


@dataclass(frozen=True)
class Roofline:
    """How fast a device runs these graphs at batch 1."""

    gflops_per_s: float
    """Highest arithmetic rate achieved."""

    gbytes_per_s: float | None = None
    """Highest memory bandwidth achieved; None if unknown."""

    us_per_convolution: float | None = None
    """Shortest time to launch a convolution; None if unknown."""

    number_bytes: float = 2
    """Bytes per number, 4 for float32."""

    corrections: tuple[tuple[float, float], ...] = ()
    """(GFLOPs, measured time / roofline) of the measurements, ascending. The ratio is interpolated over log GFLOPs, so
    that a measured graph is predicted exactly."""

    def ms(self, graph: Footprint) -> float:
        """Predicted time per image, in milliseconds."""
        bound = max(self.bounds_ms(graph).values())
        if not self.corrections:
            return bound
        gflops, ratios = zip(*self.corrections, strict=True)
        return bound * float(np.interp(np.log(graph.gflops), np.log(gflops), ratios))

    def covers(self, graph: Footprint) -> bool:
        """Whether the graph is within the range of the measurements; outside it, predictions are extrapolated."""
        if not self.corrections:
            return False
        return self.corrections[0][0] <= graph.gflops <= self.corrections[-1][0]

    def bounds_ms(self, graph: Footprint) -> dict[str, float]:
        """Lower bounds in ms: from arithmetic, memory traffic and convolution launches."""
        bounds = {"arithmetic": graph.gflops / self.gflops_per_s * 1e3}
        if self.gbytes_per_s:
            bounds["traffic"] = traffic_gb(graph, self.number_bytes) / self.gbytes_per_s * 1e3
        if self.us_per_convolution:
            bounds["starts"] = graph.convolutions * self.us_per_convolution / 1e3
        return bounds


def traffic_gb(graph: Footprint, number_bytes: float) -> float:
    """Memory traffic of the convolutions per image, in GB: feature maps in and out, and the weights once."""
    return (graph.io + graph.params) * number_bytes / 1e9


def roofline_through(measurements: Sequence[Measurement], number_bytes: float) -> Roofline:
    """The roofline of a device from measurements on it, at least one."""
    roof = Roofline(
        gflops_per_s=max(m.footprint.gflops / m.ms * 1e3 for m in measurements),
        gbytes_per_s=max(traffic_gb(m.footprint, number_bytes) / m.ms * 1e3 for m in measurements),
        us_per_convolution=min(m.ms / m.footprint.convolutions * 1e3 for m in measurements),
        number_bytes=number_bytes,
    )
    ratios: dict[float, float] = {}
    for m in measurements:
        bound = max(roof.bounds_ms(m.footprint).values())
        ratios[m.footprint.gflops] = max(m.ms / bound, ratios.get(m.footprint.gflops, 0))
    return replace(roof, corrections=tuple(sorted(ratios.items())))
