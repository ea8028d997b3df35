"""The AP gain and its bounds, on images with one object each: AP is the share of 101 recall points that is reached."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from components.promotion.gain import Gain, jackknife_counts, paired_gain, student_quantile
from yolo_core.evaluate.coco_metrics import score
from yolo_core.evaluate.coco_score import CocoScore
from yolo_core.evaluate.detections import Detections

GIVEN = {"samples": 500, "confidence": 0.95, "seed": 0}


def scored(folder: Path, found: Iterable[int], images: int = 10, objects: Iterable[int] = range(10)) -> CocoScore:
    """A detector that finds exactly the objects of the images `found`; those of `objects` have one."""
    boxes = [
        {"id": i + 1, "image_id": i, "category_id": 1, "bbox": [8, 8, 40, 40], "area": 1600, "iscrowd": 0}
        for i in objects
        if i < images
    ]
    listed = [{"id": i, "width": 64, "height": 64, "file_name": f"{i}.jpg"} for i in range(images)]
    path = folder / "truth.json"
    path.write_text(json.dumps({"images": listed, "annotations": boxes, "categories": [{"id": 1, "name": "a"}]}))
    results = [{"image_id": i, "category_id": 1, "bbox": [8, 8, 40, 40], "score": 0.9} for i in found]
    return score(path, Detections.of(results))


def test_the_gain_of_the_same_detections_is_exactly_zero(tmp_path: Path):
    same = scored(tmp_path, range(4))
    assert paired_gain(same, same, **GIVEN) == Gain(0, 0, 0, 0)


def test_the_bounds_of_one_more_image_in_ten(tmp_path: Path):
    """5 of 10 objects reach 51 recall points, 6 of 10 reach 61: the gain is 10/101.

    Without one of the 9 images on which both agree, it is 56 - 45 (of 5 and 4 in 9) or 67 - 56 (6 and 5 in 9) of 101,
    without the other one 0. Nine times 11 and one 0 have the standard deviation 11 sqrt(0.1 * 0.9) = 3.3, times
    sqrt(10 - 1): the jackknife's standard error is 9.9/101. That of the bootstrap is about 10 sqrt(0.9) = 9.5 (the
    number of that image in a resample is binomial). Student's t with 9 degrees of freedom: 1.833 at 95 %, 2.262 at
    97.5 %.
    """
    before, after = scored(tmp_path, range(5)), scored(tmp_path, range(6))
    gain = paired_gain(before, after, **GIVEN, needed=0.975)
    assert gain is not None
    bounds = [101 * bound for bound in (gain.point, gain.low, gain.high, gain.low_alone)]
    assert bounds == pytest.approx([10, 10 - 2.262 * 9.9, 10 + 1.833 * 9.9, 10 - 1.833 * 9.9], rel=2e-3)
    assert gain == paired_gain(before, after, **GIVEN, needed=0.975)
    alone = paired_gain(before, after, **GIVEN)
    assert alone == Gain(gain.point, gain.low_alone, gain.high, gain.low_alone)


def test_a_gain_that_rests_on_one_image_is_not_certain(tmp_path: Path):
    """One image of ten has an object, which only the challenger finds: the gain is 1 with it, and none without it.

    Nine times 1 and one 0 have the standard deviation 0.3, times sqrt(9): 0.9. Every resample with it has the gain 1,
    so a bootstrap alone would be certain.
    """
    before, after = scored(tmp_path, [], objects=[3]), scored(tmp_path, [3], objects=[3])
    gain = paired_gain(before, after, **GIVEN)
    assert gain is not None
    assert (gain.point, gain.low) == pytest.approx((1, 1 - 1.833 * 0.9), abs=2e-3)


def test_a_single_image_tells_nothing_of_others(tmp_path: Path):
    before, after = scored(tmp_path, [], images=1), scored(tmp_path, [0], images=1)
    gain = paired_gain(before, after, **GIVEN)
    assert gain is not None
    assert gain == Gain(gain.point, -1, 1, -1)


def test_without_ground_truth_there_is_no_gain(tmp_path: Path):
    nothing = scored(tmp_path, [], objects=[])
    assert paired_gain(nothing, nothing, **GIVEN) is None


def test_every_image_is_left_out_once_in_at_most_200_groups():
    """450 images in 200 groups: 50 groups of 3 and 150 of 2."""
    counts = jackknife_counts(450, seed=0)
    assert (1 - counts).sum(0).tolist() == [1] * 450
    assert sorted((1 - counts).sum(1).tolist()) == [2] * 150 + [3] * 50
    assert np.array_equal(np.sort(jackknife_counts(3, seed=0), 0), [[0, 0, 0], [1, 1, 1], [1, 1, 1]])


@pytest.mark.parametrize(
    ("confidence", "freedom", "quantile"),  # of printed tables
    [(0.95, 9, 1.833), (0.975, 9, 2.262), (0.99, 20, 2.528), (0.995, 60, 2.660), (0.9995, 120, 3.373)],
)
def test_quantiles_of_student(confidence: float, freedom: int, quantile: float):
    assert student_quantile(confidence, freedom) == pytest.approx(quantile, rel=2e-3)
