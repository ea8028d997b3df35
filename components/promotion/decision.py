"""The decision of the gate: its record, and the rule that makes it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from components.params import PromoteParams
from components.promotion.gain import Gain
from yolo_core.evaluate.coco_score import CocoScore

# Looks at one champion that together spend half of the chance of a false promotion. With more, a gain has less chance
# at the first looks and more at later ones; docs/registry.md has figures.
HALF_SPENT_AFTER = 5

Verdict = Literal["promote", "hold", "inconclusive", "unchanged", "rollback"]


@dataclass(frozen=True)
class ApComparison:
    """AP of champion and challenger on the same validation images (0..1); None where there is no ground truth."""

    champion: float | None
    """AP of the champion."""
    challenger: float | None
    """AP of the version being judged."""
    gain: float | None
    """Challenger minus champion."""
    gain_low: float | None
    """Lower confidence bound of the gain."""
    gain_high: float | None
    """Upper confidence bound of the gain."""
    images: int
    """Number of validation images."""
    looks: int | None = None
    """Which of the versions compared with this champion it was, from 1; None if no gain could have promoted it."""
    confidence: float | None = None
    """Of the lower bound (0..1); it grows with the looks."""

    @classmethod
    def of(
        cls, champion: CocoScore, challenger: CocoScore, gain: Gain | None, looks: int | None, confidence: float
    ) -> "ApComparison":
        """From the scores of both and what `paired_gain` made of them."""
        return cls(
            champion=champion.figures["AP"],
            challenger=challenger.figures["AP"],
            gain=gain and gain.point,
            gain_low=gain and gain.low,
            gain_high=gain and gain.high,
            images=len(challenger.image_ids),
            looks=looks,
            confidence=confidence,
        )


@dataclass(frozen=True)
class LatencyComparison:
    """Latency of champion and challenger as benchmarked at their registration: p50 at batch 1."""

    champion_ms: float | None
    """None when it was not measured."""
    challenger_ms: float | None
    """None when it was not measured."""
    ratio: float | None
    """Challenger / champion; None when they are not comparable."""


@dataclass(frozen=True)
class Decision:
    """What was decided about a version, with the numbers behind it; the content of `outputs/promote/<model>.json`."""

    model: str
    """The model's name in `params.yaml`."""
    decision: Verdict
    """What was decided; only "promote" and "rollback" change the champion."""
    reason: str
    """Why, in one sentence."""
    champion_before: int | None
    """The champion's version before the decision; None when there was none."""
    champion_after: int | None
    """The champion's version after it."""
    version: int
    """The version that was judged; of a rollback, the one that was restored."""
    compared_with: int | None = None
    """The version it was compared with: the last champion of the same classes; None when nothing was compared."""
    ap: ApComparison | None = None
    """None when nothing was compared."""
    latency: LatencyComparison | None = None
    """None when nothing was compared."""
    thresholds: Mapping[str, float | int] | None = None
    """The values of the section `promote` it was judged by; None for a rollback."""

    def document(self) -> dict[str, object]:
        """The decision as a JSON object."""
        return asdict(self)

    @classmethod
    def parse(cls, text: str) -> "Decision":
        """The decision in a JSON text that `document` made."""
        document = json.loads(text)
        ap, latency = document["ap"], document["latency"]
        comparisons = {"ap": ap and ApComparison(**ap), "latency": latency and LatencyComparison(**latency)}
        return cls(**{**document, **comparisons})


def decide(
    gain: Gain | None, latency_ratio: float | None, thresholds: PromoteParams, needed: float | None = None
) -> tuple[Verdict, str]:
    """The verdict and its reason, from the AP gain and challenger / champion latency.

    A challenger over `max_latency_ratio` is held. Otherwise its gain must be significantly above `min_ap_gain`; one at
    or under `faster_ratio` must only lose significantly less than `max_ap_loss`, if that is the lower bar.
    "Significantly": the lower bound of the gain is above the bar. When the upper bound is not above the bar the answer
    is hold; in between it is inconclusive, and promising if `confidence` would do. A ratio of None (not comparable) is
    ignored; a gain of None (no ground truth) is inconclusive. needed: the confidence of the lower bound, if it is not
    `confidence`; see `confidence_at`.
    """
    t = thresholds
    if latency_ratio is not None and too_slow(latency_ratio, t):
        return "hold", f"{latency_ratio:.2f} times the champion's latency is over {t.max_latency_ratio:g}"
    if gain is None:
        return "inconclusive", "no AP could be measured on the validation images"
    is_faster = latency_ratio is not None and latency_ratio <= t.faster_ratio
    bar = min(t.min_ap_gain, -t.max_ap_loss) if is_faster else t.min_ap_gain
    wanted = f"{bar:+.4f} AP needed{' of a faster model' if is_faster else ''}"
    strict, alone = (f"{100 * one:.6g} %" for one in (needed or t.confidence, t.confidence))
    bounds = f"AP gain {gain.point:+.4f}, from {gain.low:+.4f} at {strict} to {gain.high:+.4f} at {alone} confidence"
    if gain.low > bar:
        return "promote", f"{bounds}: above the {wanted}"
    if gain.high <= bar:
        return "hold", f"{bounds}: not above the {wanted}"
    if gain.low_alone > bar:
        return "inconclusive", f"{bounds}: promising, at {alone} above the {wanted}; at {strict} {_missing(gain, bar)}"
    return "inconclusive", f"{bounds}: not clearly above or below the {wanted}"


def too_slow(latency_ratio: float | None, thresholds: PromoteParams) -> bool:
    """Whether challenger / champion latency holds a version back, whatever its AP; None (not comparable) does not."""
    return latency_ratio is not None and latency_ratio > thresholds.max_latency_ratio


def _missing(gain: Gain, bar: float) -> str:
    """What a version lacks whose gain would be enough if it were the only one compared with the champion."""
    width = gain.point - gain.low
    times = (width / (gain.point - bar)) ** 2  # a bound's distance falls with the square root of the images
    return f"that takes a gain of {bar + width:+.4f}, or this one on about {times:.1f} times as many images"


def confidence_at(look: int, confidence: float) -> float:
    """The confidence that the k-th version compared with one champion needs.

    The first k looks together spend k / (k + h) of the chance of a false promotion, 1 - confidence, with h =
    HALF_SPENT_AFTER; so the k-th one spends h / ((k + h - 1) (k + h)) of it. However often a champion is challenged on
    the same images, it loses its place without a gain with a chance of at most 1 - confidence (Bonferroni's inequality,
    so it holds however the challengers depend on each other).
    """
    share = HALF_SPENT_AFTER / ((look + HALF_SPENT_AFTER - 1) * (look + HALF_SPENT_AFTER))
    return 1 - (1 - confidence) * share
