"""The gate's decision, and how the chance of a false promotion is divided among its looks."""

import pytest

from components.params import PromoteParams
from components.promotion.decision import confidence_at, decide
from components.promotion.gain import Gain

THRESHOLDS = PromoteParams(
    min_ap_gain=0.01,
    max_latency_ratio=1.2,
    faster_ratio=0.8,
    max_ap_loss=0.02,
    confidence=0.95,
    bootstrap_samples=500,
)


@pytest.mark.parametrize(
    ("low", "high", "ratio", "decision"),
    [
        (0.02, 0.05, 1.0, "promote"),  # all of it above 0.01
        (0.01, 0.05, 1.0, "inconclusive"),  # the bar itself is not above the bar
        (-0.01, 0.05, 1.0, "inconclusive"),
        (-0.03, 0.01, 1.0, "hold"),  # none of it above 0.01
        (0.02, 0.05, 1.2, "promote"),  # the slowest that is allowed
        (0.02, 0.05, 1.21, "hold"),  # too slow, whatever the AP
        (-0.01, 0.005, 0.8, "promote"),  # fast enough that losing less than 0.02 suffices
        (-0.01, 0.005, 0.81, "hold"),  # not fast enough for that
        (-0.03, 0.005, 0.5, "inconclusive"),  # may lose more than 0.02
        (-0.05, -0.03, 0.5, "hold"),  # significantly loses more than 0.02
        (0.02, 0.05, None, "promote"),  # latencies that cannot be compared do not count
        (0.0, 0.0, None, "hold"),  # the same detections
    ],
)
def test_decision(low: float, high: float, ratio: float | None, decision: str):
    made, reason = decide(Gain((low + high) / 2, low, high, low), ratio, THRESHOLDS)
    assert made == decision
    assert reason
    assert "\n" not in reason


def test_without_ground_truth_nothing_is_decided_but_a_slow_one_is_held():
    assert decide(None, 1.0, THRESHOLDS)[0] == "inconclusive"
    assert decide(None, 2.0, THRESHOLDS)[0] == "hold"


def test_a_faster_model_never_needs_more_than_a_slower_one():
    lenient = THRESHOLDS.model_copy(update={"min_ap_gain": -0.1})  # requires less than max_ap_loss does
    gain = Gain(-0.05, -0.05, -0.05, -0.05)
    assert decide(gain, 1.0, lenient)[0] == "promote"
    assert decide(gain, 0.5, lenient)[0] == "promote"


def test_a_gain_that_only_the_number_of_comparisons_outweighs_is_promising():
    """The bar is 0.01. The gain of 0.03 is enough at 95 % (0.012), not at 99.9 % (-0.01), which is 0.04 below it.

    There, 0.01 + 0.04 = 0.05 would be above the bar. With n times the images that bound is 0.04 / sqrt(n) below 0.03:
    at n = (0.04 / 0.02)^2 = 4 it reaches the bar.
    """
    made, reason = decide(Gain(0.03, -0.01, 0.05, 0.012), None, THRESHOLDS, 0.999)
    assert made == "inconclusive"
    assert reason == (
        "AP gain +0.0300, from -0.0100 at 99.9 % to +0.0500 at 95 % confidence: promising, at 95 % above the "
        "+0.0100 AP needed; at 99.9 % that takes a gain of +0.0500, or this one on about 4.0 times as many images"
    )
    assert "promising" not in decide(Gain(0.03, -0.01, 0.05, 0.01), None, THRESHOLDS, 0.999)[1]


def test_the_chances_of_a_false_promotion_add_up_to_the_stated_one():
    """After k looks k / (k + 5) of it is spent: 1/6, 2/7, 3/8, ..., of which look 2 spent 2/7 - 1/6 = 5/42."""
    spent = [1 - confidence_at(look, 0.95) for look in range(1, 1001)]
    assert spent[:3] == pytest.approx([0.05 / 6, 0.05 * 5 / 42, 0.05 * 5 / 56])
    assert sum(spent[:5]) == pytest.approx(0.05 / 2)
    assert sum(spent) == pytest.approx(0.05 * 1000 / 1005)
