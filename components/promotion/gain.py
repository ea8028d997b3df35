"""The AP gain of a challenger, with the confidence bounds that the gate judges by.

Both versions are scored on the same resamples of the validation images, so what they share cancels. The standard error
is the larger of two: that of a bootstrap, which is too small with few images, and that of a jackknife, which is on
average not too small for any statistic (Efron and Stein, The jackknife estimate of variance, 1981). Bounds are
symmetric, with quantiles of Student's t: gains between two versions of a detector have no skew worth a correction.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from yolo_core.evaluate.coco_score import CocoScore
from yolo_core.evaluate.resampling import ap_for_image_counts

MOST_GROUPS = 200  # of the jackknife


@dataclass(frozen=True)
class Gain:
    """AP of the challenger minus AP of the champion (0..1)."""

    point: float
    """On the validation images as they are."""
    low: float
    """One-sided lower confidence bound, at the confidence that a promotion needs."""
    high: float
    """One-sided upper confidence bound, at `promote.confidence`."""
    low_alone: float
    """One-sided lower confidence bound at `promote.confidence`: what would count if this were the only comparison."""


def paired_gain(
    champion: CocoScore,
    challenger: CocoScore,
    *,
    samples: int,
    confidence: float,
    seed: int,
    needed: float | None = None,
) -> Gain | None:
    """The AP gain and its bounds: the upper one at `confidence`, the lower one at `needed`, or also at `confidence`.

    Each bound holds on its own. None when there is no ground truth.
    """
    before, after = champion.figures["AP"], challenger.figures["AP"]
    if before is None or after is None:
        return None
    point, images = after - before, len(champion.image_ids)
    if images < 2:
        return Gain(point, -1.0, 1.0, -1.0)  # one image tells nothing of others
    bootstrapped, left_out = (
        ap_for_image_counts(challenger, counts) - ap_for_image_counts(champion, counts)
        for counts in (bootstrap_counts(images, samples, seed), jackknife_counts(images, seed))
    )
    error = max(bootstrap_error(bootstrapped), jackknife_error(left_out))
    alone, strict = (error * student_quantile(one, len(left_out) - 1) for one in (confidence, needed or confidence))
    return Gain(point, point - strict, point + alone, point - alone)


def bootstrap_counts(images: int, samples: int, seed: int) -> np.ndarray:
    """How many times each image is in each resample of as many images: (S, I)."""
    return np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=samples)


def jackknife_counts(images: int, seed: int) -> np.ndarray:
    """All images without one group, for each of G random groups: (G, I) of 0 and 1; a group is one image if it can."""
    groups = min(images, MOST_GROUPS)
    group = np.random.default_rng(seed).permutation(images) % groups
    return (group != np.arange(groups)[:, None]).astype(np.int64)


def bootstrap_error(gains: np.ndarray) -> float:
    """The standard error of a gain, from the gains (S,) on resamples; NaN for one without ground truth."""
    return float(np.nanstd(gains))


def jackknife_error(gains: np.ndarray) -> float:
    """The standard error of a gain, from the gains (G,) without one group of images each.

    NaN, where a group has all ground truth, counts as no gain.
    """
    return float(np.nan_to_num(gains).std()) * math.sqrt(len(gains) - 1)


def student_quantile(confidence: float, freedom: int) -> float:
    """The quantile of Student's t for a confidence of 0.5 or more, by Wallace's approximation (Biometrika, 1959).

    Within 0.7 % of the exact one for 10 degrees of freedom or more, up to the confidence of the 100th look, and too
    large for fewer.
    """
    normal = NormalDist().inv_cdf(confidence) * (8 * freedom + 3) / (8 * freedom + 1)
    return math.sqrt(freedom * math.expm1(normal**2 / freedom))
