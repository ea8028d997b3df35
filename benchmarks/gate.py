"""How often the gate promotes by chance, and what it misses: `python -m benchmarks.gate`, after the quickstart.

Detectors are made from the real detections of one: noise on scores and boxes, and some detections lost. All those of
the same noise are equally good, the champion among them, so each promotion of one of them is false. The gate judges one
after another on the same images, as in a nightly retraining, by the plain rule (each at `promote.confidence`), by one
that spends the chance of a false promotion sooner, and by the rule in use. Then the same with less noise, which is
worth one AP.
"""

import argparse
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from components.files import read_json
from components.promotion.decision import confidence_at
from components.promotion.gain import (
    bootstrap_counts,
    bootstrap_error,
    jackknife_counts,
    jackknife_error,
    student_quantile,
)
from yolo_core.evaluate.coco_metrics import score
from yolo_core.evaluate.coco_score import CocoScore
from yolo_core.evaluate.detections import Detections
from yolo_core.evaluate.resampling import ap_for_image_counts

CONFIDENCE, SAMPLES = 0.95, 1000  # defaults of the section `promote`
JITTER, LESS_JITTER = 0.06, 0.03  # standard deviation of a box's position and log size, in sides
SCORE_NOISE = 0.3  # standard deviation on the logit of a score
LOST = 0.05  # fraction of detections
LEAST_SCORE = 0.05  # lower ones change AP by less than the noise, and take most of the time
TRUE_GAIN = 0.01  # AP
DRAWS = 100  # to measure a mean AP
BETTER = 20  # challengers of a champion that are better
LOOKS_SHOWN = (1, 10, 100)

Rule = Callable[[int], float]
"""The confidence needed at look k, from 1."""

RULES: dict[str, Rule] = {
    "each at 95 %": lambda _look: CONFIDENCE,
    "over all looks 95 %, 1 / (k (k + 1)) of the chance at look k": lambda k: 1 - (1 - CONFIDENCE) / (k * (k + 1)),
    "over all looks 95 %, as in use": lambda look: confidence_at(look, CONFIDENCE),
}


@dataclass(frozen=True)
class World:
    """Detectors that differ by chance, judged on the same images."""

    annotations: Path
    """COCO instances."""

    detections: Detections
    """What all of them come from."""

    rng: np.random.Generator
    """Source of all random draws."""

    def detector(self, jitter: float) -> CocoScore:
        """The score of one more detector."""
        some = self.detections.where(self.rng.random(len(self.detections.score)) >= LOST)
        count = len(some.score)
        boxes = some.xywh_px.copy()
        sides = boxes[:, 2:]
        boxes[:, :2] += self.rng.normal(0, jitter, (count, 2)) * sides
        boxes[:, 2:] = sides * np.exp(self.rng.normal(0, jitter, (count, 2)))
        inside = some.score.clip(1e-6, 1 - 1e-6)
        logits = np.log(inside / (1 - inside)) + self.rng.normal(0, SCORE_NOISE, count)
        order = np.lexsort((-logits, some.image_id))
        noisy = Detections(some.image_id, some.category_id, boxes, 1 / (1 + np.exp(-logits)))
        return score(self.annotations, noisy.where(order))

    def mean_ap(self, jitter: float) -> float:
        """Of many detectors."""
        return float(np.mean([ap_of(self.detector(jitter)) for _ in range(DRAWS)]))


def ap_of(result: CocoScore) -> float:
    """AP; the ground truth has objects."""
    return result.figures["AP"] or 0.0


@dataclass(frozen=True)
class Life:
    """One champion and the versions that are compared with it."""

    annotations: Path
    detections: Detections
    resamples: np.ndarray
    """(S, I): counts of the bootstrap."""
    left_out: np.ndarray
    """(G, I): counts of the jackknife."""
    seed: int
    challengers: int
    jitter: float
    """Of the challengers."""

    def __call__(self, champion: int) -> tuple[float, np.ndarray]:
        """A standard error of the gain, and of each challenger its gain, also in standard errors: (challengers, 2).

        0 or -inf for one that no rule promotes: resampling takes most of the time.
        """
        world = World(self.annotations, self.detections, np.random.default_rng([self.seed, champion, self.challengers]))
        before = world.detector(JITTER)
        resampled, without = (ap_for_image_counts(before, counts) for counts in (self.resamples, self.left_out))
        least = student_quantile(CONFIDENCE, len(without) - 1)

        def error(one: CocoScore, point: float = np.inf) -> float:
            """The standard error of its gain; inf if one of the two is too large for a gain `point`."""
            left_out = jackknife_error(ap_for_image_counts(one, self.left_out) - without)
            if point < least * left_out:
                return np.inf
            return max(left_out, bootstrap_error(ap_for_image_counts(one, self.resamples) - resampled))

        typical = error(world.detector(self.jitter))
        result = []
        for _ in range(self.challengers):
            one = world.detector(self.jitter)
            point = ap_of(one) - ap_of(before)
            result.append((point, point / error(one, point) if point > typical else -np.inf))
        return typical, np.array(result)


def needed(rule: Rule, looks: Iterable[int], groups: int) -> np.ndarray:
    """The gain in standard errors that each look needs."""
    return np.array([student_quantile(rule(look), groups - 1) for look in looks])


def main() -> None:
    parser = argparse.ArgumentParser(description="How often the gate promotes by chance, and what it misses.")
    parser.add_argument("--annotations", type=Path, default=Path("data/prepared/annotations/instances_val.json"))
    parser.add_argument("--detections", type=Path, default=Path("outputs/evaluate/yolov4-tiny/detections.json"))
    parser.add_argument("--champions", type=int, default=20)
    parser.add_argument("--challengers", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()

    found = Detections.of(read_json(given.detections))
    found = found.where(found.score >= LEAST_SCORE)
    images = len(read_json(given.annotations)["images"])
    counts = bootstrap_counts(images, SAMPLES, given.seed), jackknife_counts(images, given.seed)
    world = World(given.annotations, found, np.random.default_rng(given.seed))
    worse, better = world.mean_ap(JITTER), world.mean_ap(LESS_JITTER)
    jitter = JITTER - (JITTER - LESS_JITTER) * TRUE_GAIN / (better - worse)
    life = partial(Life, given.annotations, found, *counts, given.seed)
    # Forked processes hang in the scorer.
    with ProcessPoolExecutor(given.processes, mp_context=get_context("spawn")) as pool:
        run = pool.map if given.processes > 1 else map
        errors, equal = zip(*run(life(given.challengers, JITTER), range(given.champions)), strict=True)
        _, gained = zip(*run(life(BETTER, jitter), range(given.champions)), strict=True)

    groups = len(counts[1])
    points, in_errors = np.moveaxis(np.array(equal), -1, 0)
    better_in_errors = np.array(gained)[..., 1]
    print(f"{given.champions} champions, {given.challengers} equal challengers each, {images} images")
    shared = points.mean(1).var() / points.var()
    print(f"gain by chance: standard deviation {points.std():.4f} AP, correlation of challengers {shared:.2f}")
    print(f"standard error in use: {np.mean(errors):.4f} AP")
    for name, rule in RULES.items():
        promoted = in_errors > needed(rule, range(1, given.challengers + 1), groups)
        print(f"{name}: {promoted.mean():.2%} of challengers, {promoted.any(1).mean():.1%} of champions replaced")
    print(f"true gain {world.mean_ap(jitter) - worse:+.4f} AP, of {worse:.3f}; chance to be promoted:")
    for name, rule in RULES.items():
        chances = (f"{(better_in_errors > needed(rule, [k], groups)).mean():.1%} at look {k}" for k in LOOKS_SHOWN)
        print(f"  {name}: {', '.join(chances)}")


if __name__ == "__main__":
    main()
