"""AP over resampled images against pycocotools itself."""

import numpy as np
import pytest
from planted import detections, random_case, write_ground_truth

from yolo_core.evaluate.coco_metrics import score
from yolo_core.evaluate.resampling import ap_for_image_counts


@pytest.mark.parametrize("seed", range(5))
def test_counts_of_one_give_the_same_ap(tmp_path, seed):
    truths, found = random_case(seed)
    result = score(write_ground_truth(tmp_path / "t.json", truths, range(1, 13)), detections(*found))
    assert ap_for_image_counts(result, np.ones(12, int)) == pytest.approx(result.figures["AP"], abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_counts_equal_pycocotools_on_the_resampled_set(tmp_path, seed):
    """Each resample is written out as its own dataset, with an image drawn twice appearing twice."""
    truths, found = random_case(seed)
    result = score(write_ground_truth(tmp_path / "t.json", truths, range(1, 13)), detections(*found))
    draws = np.random.default_rng(seed).integers(0, 12, (4, 12))
    expected = []
    for draw in draws:
        copies = list(enumerate(draw + 1, start=1))
        many = [(new, *truth[1:]) for new, old in copies for truth in truths if truth[0] == old]
        again = detections(*((new, *one[1:]) for new, old in copies for one in found if one[0] == old))
        resampled = write_ground_truth(tmp_path / "r.json", many, range(1, 13))
        expected.append(score(resampled, again, judge="pycocotools").figures["AP"])
    counts = np.stack([np.bincount(draw, minlength=12) for draw in draws])
    assert ap_for_image_counts(result, counts) == pytest.approx(np.array(expected), abs=1e-12)


def test_counts_of_the_wrong_length_are_refused(tmp_path):
    result = score(write_ground_truth(tmp_path / "t.json", [(1, 1, [0, 0, 10, 10], 0)], [1, 2]), detections())
    with pytest.raises(ValueError, match="3 images, the score has 2"):
        ap_for_image_counts(result, np.ones(3, int))
