"""Nine anchors for many boxes: k-means and a thousand generations of refinement."""

import time
from collections.abc import Callable
from itertools import count

import numpy as np
import typer

from benchmarks import peers
from benchmarks.contender import Contender, Figures, Round
from benchmarks.race import race
from benchmarks.report import Goal, publish
from yolo_core.anchors import FitSettings, fit, quality

ANCHORS, SIZE, ANCHOR_T = 9, 640, 4.0
SETTINGS = FitSettings(generations=1000)

Fit = Callable[[np.ndarray], np.ndarray]


def main(boxes: int = 100_000, rounds: int = 5) -> None:
    options = {"boxes": boxes}
    results = race(
        [
            Contender("ours", "benchmarks.anchors:ours", options, threads=2),
            Contender("yolov7", "benchmarks.peers.anchors:original", options, peers.path("yolov7"), threads=2),
            Contender("SciPy k-means alone", "benchmarks.peers.anchors:scipy_kmeans", options, threads=2),
        ],
        rounds,
        warmup=0,
    )
    goals = [Goal("seconds", "s", "less", value=1.5), Goal("fitness", "", "more", ratio=1, against="yolov7")]
    publish("anchors", results, goals, boxes=boxes, anchors=ANCHORS, generations=SETTINGS.generations, threads=2)


def ours(boxes: int) -> Round:
    """One seed per round: the result of the refinement depends on it, in the original as well."""
    seeds = count()

    def once(sides: np.ndarray) -> np.ndarray:
        levels = fit(sides, [ANCHORS // 3] * 3, anchor_t=ANCHOR_T, settings=SETTINGS, seed=next(seeds))
        assert levels
        return np.concatenate(levels)

    return timed(once, boxes)


def timed(once: Fit, boxes: int) -> Round:
    """A round fits anchors once; their fitness is computed by one function, outside the measured time."""
    sides = box_sides(boxes)

    def measured() -> Figures:
        began, cpu = time.perf_counter(), time.process_time()
        anchors = once(sides)
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
        return {"seconds": seconds, "cpu_seconds": cpu_seconds, "fitness": quality(sides, anchors, ANCHOR_T).fitness}

    return measured


def box_sides(number: int, seed: int = 0) -> np.ndarray:
    """(N, 2) px: sizes and shapes distributed like those of photographs, rounded to hundredths, at least 2 px."""
    rng = np.random.default_rng(seed)
    size, shape = rng.normal(np.log(60), 1.1, number), rng.normal(0, 0.45, number)
    return np.exp(np.stack((size + shape, size - shape), 1)).clip(2, SIZE).round(2)


if __name__ == "__main__":
    typer.run(main)
