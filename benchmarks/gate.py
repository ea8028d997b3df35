"""How often the gate promotes by chance, and what it misses: `python -m benchmarks.gate`, after the quickstart.

Detectors are made from the real detections of one: noise on scores and boxes, and some detections lost. All those of
the same noise are equally good, the champion among them, so each promotion of one of them is false. The gate judges one
after another on the same images, as in a nightly retraining, by the plain rule (each at `promote.confidence`) and by
the rule in use, which divides the chance of a false promotion among all looks. Then the same with less noise, which is
worth one AP.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
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
    """Of all chances."""

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
        return float(np.mean([self.detector(jitter).figures["AP"] for _ in range(DRAWS)]))


def promotions(world: World, counts: np.ndarray, jitter: float, challengers: int) -> Iterator[tuple[bool, list[float]]]:
    """For each challenger of one champion: whether the plain rule promotes it, and its lower bound at each look."""
    champion = world.detector(JITTER)
    before, resampled = champion.figures["AP"] or 0.0, ap_for_image_counts(champion, counts)
    for look in range(1, challengers + 1):
        one = world.detector(jitter)
        gains = ap_for_image_counts(one, counts) - resampled
        point = (one.figures["AP"] or 0.0) - before
        plain = bounded(point, gains, CONFIDENCE, CONFIDENCE).low > 0
        looks = (look, *LOOKS_SHOWN)
        yield plain, [bounded(point, gains, CONFIDENCE, confidence_at(k, CONFIDENCE)).low for k in looks]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--annotations", type=Path, default=Path("data/prepared/annotations/instances_val.json"))
    parser.add_argument("--detections", type=Path, default=Path("outputs/evaluate/yolov4-tiny/detections.json"))
    parser.add_argument("--champions", type=int, default=20)
    parser.add_argument("--challengers", type=int, default=200)
    given = parser.parse_args()

    found = Detections.of(read_json(given.detections))
    world = World(given.annotations, found.where(found.score >= LEAST_SCORE), np.random.default_rng(0))
    images = len(read_json(given.annotations)["images"])
    counts = np.random.default_rng(0).multinomial(images, np.full(images, 1 / images), size=SAMPLES)

    equal = [list(promotions(world, counts, JITTER, given.challengers)) for _ in range(given.champions)]
    plain = np.array([[one for one, _ in life] for life in equal])
    spent = np.array([[low[0] > 0 for _, low in life] for life in equal])
    print(f"{given.champions} champions, {given.challengers} equal challengers each, {images} images")
    for name, promoted in (("each at 95 %", plain), ("over all looks 95 %", spent)):
        print(f"{name}: {promoted.mean():.2%} of challengers, {promoted.any(1).mean():.0%} of champions replaced")

    worse, better = world.mean_ap(JITTER), world.mean_ap(LESS_JITTER)
    jitter = JITTER - (JITTER - LESS_JITTER) * TRUE_GAIN / (better - worse)
    print(f"true gain {world.mean_ap(jitter) - worse:+.4f} AP, of {worse:.3f}; chance to be promoted:")
    gained = [one for _ in range(given.champions) for one in promotions(world, counts, jitter, DRAWS // 10)]
    print(f"  each at 95 %: {np.mean([plain for plain, _ in gained]):.1%}")
    for place, look in enumerate(LOOKS_SHOWN, 1):
        print(f"  over all looks 95 %, at look {look}: {np.mean([low[place] > 0 for _, low in gained]):.1%}")


if __name__ == "__main__":
    main()
