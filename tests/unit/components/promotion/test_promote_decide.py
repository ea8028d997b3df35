"""The gate's arithmetic: the decision and the paired bootstrap."""

import json
from pathlib import Path

import numpy as np
import pytest

from components.params import PromoteParams
from components.promotion.decision import Gain, confidence_at, decide, paired_gain
from yolo_core.evaluate.coco_metrics import score
from yolo_core.evaluate.detections import Detections
from yolo_core.evaluate.resampling import ap_for_image_counts

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


def test_a_promising_gain_that_is_itself_below_the_bar_is_not_helped_by_images():
    """The median of the resamples, from which the bounds are measured, may be above the gain on the images as such."""
    made, reason = decide(Gain(0.009, 0.004, 0.05, 0.011), None, THRESHOLDS, 0.999)
    assert made == "inconclusive"
    assert reason.endswith("; at 99.9 % that takes a gain of +0.0150")  # 0.01 + (0.009 - 0.004)


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    """Ten images with one object each, of one class."""
    images = [{"id": i, "width": 64, "height": 64, "file_name": f"{i}.jpg"} for i in range(10)]
    boxes = [
        {"id": i + 1, "image_id": i, "category_id": 1, "bbox": [8, 8, 40, 40], "area": 1600, "iscrowd": 0}
        for i in range(10)
    ]
    path = tmp_path / "truth.json"
    path.write_text(json.dumps({"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "a"}]}))
    return path


def found(images: range) -> Detections:
    return Detections.of([{"image_id": i, "category_id": 1, "bbox": [8, 8, 40, 40], "score": 0.9} for i in images])


def test_bootstrap_of_the_same_detections_is_exactly_zero(truth: Path):
    same = score(truth, found(range(4)))
    assert paired_gain(same, same, samples=100, confidence=0.95, seed=0) == Gain(0, 0, 0, 0)


def test_bootstrap_of_one_more_image_in_ten(truth: Path):
    """All right detections, so AP is the share of 101 recall points reached: 51/101 for 5 of 10, 61/101 for 6 of 10.

    The gain is 10/101. A resample lacks the image that differs with probability 0.9 ** 10 = 0.35: the lower bound
    is 0. It holds the image 4 times or more with probability 0.013, 3 times or more with 0.07: the upper bound
    at 95 % is a gain of 3 images in 10, at least 29 of 101 recall points.
    """
    before, after = score(truth, found(range(5))), score(truth, found(range(6)))
    gain = paired_gain(before, after, samples=2000, confidence=0.95, seed=0)
    assert gain is not None
    assert gain.point == pytest.approx(10 / 101)
    assert gain.low == 0
    assert 29 / 101 <= gain.high <= 31 / 101
    assert gain == paired_gain(before, after, samples=2000, confidence=0.95, seed=0)


def test_bootstrap_without_ground_truth_has_no_answer(tmp_path: Path):
    path = tmp_path / "empty.json"
    images = [{"id": 1, "width": 64, "height": 64, "file_name": "1.jpg"}]
    path.write_text(json.dumps({"images": images, "annotations": [], "categories": [{"id": 1, "name": "a"}]}))
    nothing = score(path, found(range(0)))
    assert paired_gain(nothing, nothing, samples=100, confidence=0.95, seed=0) is None


def test_the_chances_of_a_false_promotion_add_up_to_the_stated_one():
    """After k looks k / (k + 5) of it is spent: 1/6, 2/7, 3/8, ..., of which look 2 spent 2/7 - 1/6 = 5/42."""
    spent = [1 - confidence_at(look, 0.95) for look in range(1, 1001)]
    assert spent[:3] == pytest.approx([0.05 / 6, 0.05 * 5 / 42, 0.05 * 5 / 56])
    assert sum(spent[:5]) == pytest.approx(0.05 / 2)
    assert sum(spent) == pytest.approx(0.05 * 1000 / 1005)


def test_the_lower_bound_widens_as_that_of_a_normal_distribution(truth: Path):
    """The standard normal quantiles of 0.975 and 0.95 are 1.960 and 1.645."""
    before, after = score(truth, found(range(3))), score(truth, found(range(8)))
    given = {"samples": 2000, "confidence": 0.95, "seed": 0}
    plain, wider = (paired_gain(before, after, **given, needed=needed) for needed in (None, 0.975))
    assert plain is not None
    assert wider is not None
    counts = np.random.default_rng(0).multinomial(10, np.full(10, 0.1), size=2000)
    middle = np.median(ap_for_image_counts(after, counts) - ap_for_image_counts(before, counts))
    assert (middle - wider.low) / (middle - plain.low) == pytest.approx(1.960 / 1.645, rel=1e-3)
    assert (wider.point, wider.high) == (plain.point, plain.high)
    assert wider.low_alone == plain.low_alone == plain.low
