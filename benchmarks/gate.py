"""How often the gate promotes by chance, and what it misses: `python -m benchmarks.gate`, after the quickstart.

Detectors are made from the real detections of one: noise on scores and boxes, and some detections lost. All those of
the same noise are equally good, the champion among them, so each promotion of one of them is false. The gate judges one
after another on the same images, as in a nightly retraining, by the plain rule (each at `promote.confidence`) and by
the rule in use, which divides the chance of a false promotion among all looks. Then the same with less noise, which is
worth one AP.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from components.files import read_json
from components.promotion.decision import bounded, confidence_at
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
LOOKS_SHOWN = (1, 10, 100)


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
    counts: np.ndarray
    """(S, I) resamples of the images."""
    challengers: int
    jitter: float
    """Of the challengers."""

    def __call__(self, champion: int) -> list[tuple[bool, list[float]]]:
        """For each challenger: whether the plain rule promotes it, and its lower bound at its look and LOOKS_SHOWN."""
        world = World(self.annotations, self.detections, np.random.default_rng([champion, self.challengers]))
        before = world.detector(JITTER)
        resampled = ap_for_image_counts(before, self.counts)
        result = []
        for look in range(1, self.challengers + 1):
            one = world.detector(self.jitter)
            point, gains = ap_of(one) - ap_of(before), ap_for_image_counts(one, self.counts) - resampled
            lows = [bounded(point, gains, CONFIDENCE, confidence_at(k, CONFIDENCE)).low for k in (look, *LOOKS_SHOWN)]
            result.append((bounded(point, gains, CONFIDENCE, CONFIDENCE).low > 0, lows))
        return result


def main() -> None:
    parser = argparse.ArgumentParser(description="How often the gate promotes by chance, and what it misses.")
    parser.add_argument("--annotations", type=Path, default=Path("data/prepared/annotations/instances_val.json"))
    parser.add_argument("--detections", type=Path, default=Path("outputs/evaluate/yolov4-tiny/detections.json"))
    parser.add_argument("--champions", type=int, default=20)
    parser.add_argument("--challengers", type=int, default=200)
    given = parser.parse_args()

    found = Detections.of(read_json(given.detections))
    found = found.where(found.score >= LEAST_SCORE)
    images = len(read_json(given.annotations)["images"])
    counts = np.random.default_rng(0).multinomial(images, np.full(images, 1 / images), size=SAMPLES)
    life = partial(Life, given.annotations, found, counts)
    world = World(given.annotations, found, np.random.default_rng(0))
    worse, better = world.mean_ap(JITTER), world.mean_ap(LESS_JITTER)
    jitter = JITTER - (JITTER - LESS_JITTER) * TRUE_GAIN / (better - worse)
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:  # forked ones hang in threads of the scorer
        equal = list(pool.map(life(given.challengers, JITTER), range(given.champions)))
        gained = [one for few in pool.map(life(DRAWS // 10, jitter), range(given.champions)) for one in few]

    plain = np.array([[one for one, _ in rows] for rows in equal])
    spent = np.array([[low[0] > 0 for _, low in rows] for rows in equal])
    print(f"{given.champions} champions, {given.challengers} equal challengers each, {images} images")
    for name, promoted in (("each at 95 %", plain), ("over all looks 95 %", spent)):
        print(f"{name}: {promoted.mean():.2%} of challengers, {promoted.any(1).mean():.0%} of champions replaced")
    print(f"true gain {world.mean_ap(jitter) - worse:+.4f} AP, of {worse:.3f}; chance to be promoted:")
    print(f"  each at 95 %: {np.mean([plain for plain, _ in gained]):.1%}")
    for number, look in enumerate(LOOKS_SHOWN, 1):
        print(f"  over all looks 95 %, at look {look}: {np.mean([low[number] > 0 for _, low in gained]):.1%}")


if __name__ == "__main__":
    main()
