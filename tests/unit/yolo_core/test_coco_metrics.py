"""COCO figures of planted detections, and AP over resampled images against pycocotools itself."""

import json

import numpy as np
import pytest

from yolo_core.evaluate.coco_metrics import FIGURES, ap_for_image_counts, score


def write_truth(path, annotations, images, categories=((1, "cat"), (7, "dog"))):
    content = {
        "images": [{"id": i, "width": 640, "height": 640, "file_name": f"{i}.jpg"} for i in images],
        "categories": [{"id": i, "name": name} for i, name in categories],
        "annotations": [
            {"id": n + 1, "image_id": i, "category_id": c, "bbox": box, "area": box[2] * box[3], "iscrowd": crowd}
            for n, (i, c, box, crowd) in enumerate(annotations)
        ],
    }
    path.write_text(json.dumps(content))
    return path


def detection(image, category, box, value):
    return {"image_id": image, "category_id": category, "bbox": list(box), "score": value}


def random_case(seed, images=12):
    """Truths (some crowds) and detections around and beside them; scores all differ."""
    rng = np.random.default_rng(seed)
    truths, found = [], []
    for image in range(1, images + 1):
        for _ in range(rng.integers(0, 6)):
            box = [*rng.uniform(0, 500, 2), *np.exp(rng.uniform(2, 5, 2))]
            category = int(rng.choice([1, 7]))
            truths.append((image, category, [round(float(v), 2) for v in box], int(rng.random() < 0.15)))
            for _ in range(rng.integers(0, 4)):
                moved = np.array(box) + rng.normal(0, 0.08, 4) * [box[2], box[3], box[2], box[3]]
                other = int(rng.choice([1, 7])) if rng.random() < 0.2 else category
                found.append(detection(image, other, moved.tolist(), float(rng.random())))
        found.append(detection(image, 7, [*rng.uniform(0, 500, 2), 40, 30], float(rng.random())))
    return truths, found


def test_perfect_detections(tmp_path):
    truth = write_truth(tmp_path / "t.json", [(1, 1, [0, 0, 20, 20], 0), (2, 7, [5, 5, 50, 50], 0)], [1, 2])
    result = score(truth, [detection(1, 1, [0, 0, 20, 20], 0.9), detection(2, 7, [5, 5, 50, 50], 0.8)])
    # 400 px2 is small (< 32 x 32), 2500 px2 is medium (< 96 x 96), nothing is large.
    expected = dict.fromkeys(FIGURES, pytest.approx(1.0)) | {"AP_large": None, "AR_large": None}
    assert result.figures == expected
    assert result.per_class == {"cat": {"AP": pytest.approx(1), "AP50": pytest.approx(1)}} | {
        "dog": {"AP": pytest.approx(1), "AP50": pytest.approx(1)}
    }


def test_one_right_one_missed_one_false(tmp_path, capsys):
    """Two cats, one found at IoU 0.8, one false alarm of higher score; no dog anywhere."""
    truth = write_truth(tmp_path / "t.json", [(1, 1, [0, 0, 10, 10], 0), (1, 1, [100, 0, 10, 10], 0)], [1, 2])
    result = score(truth, [detection(1, 1, [0, 0, 10, 8], 0.6), detection(2, 1, [0, 0, 10, 10], 0.9)])
    # Precision 1/2 up to recall 1/2, then 0: 51 of 101 recall points x 0.5, at the 7 thresholds .50 to .80.
    assert result.figures["AP50"] == pytest.approx(51 / 101 / 2)
    assert result.figures["AP"] == pytest.approx(51 / 101 / 2 * 7 / 10)
    assert result.figures["AR100"] == pytest.approx(0.5 * 7 / 10)
    assert result.per_class["dog"] == {"AP": None, "AP50": None}
    assert capsys.readouterr().out == ""


def test_no_detections_and_no_truth(tmp_path):
    truth = write_truth(tmp_path / "t.json", [(1, 1, [0, 0, 10, 10], 0)], [1, 2])
    assert score(truth, []).figures["AP"] == 0
    nothing = score(truth, [], image_ids=[2])
    assert set(nothing.figures.values()) == {None}
    assert np.isnan(ap_for_image_counts(nothing, np.array([1])))


def test_only_the_chosen_images_count(tmp_path):
    truth = write_truth(tmp_path / "t.json", [(1, 1, [0, 0, 10, 10], 0), (2, 1, [0, 0, 10, 10], 0)], [1, 2])
    found = [detection(1, 1, [0, 0, 10, 10], 0.9), detection(2, 1, [50, 50, 10, 10], 0.95)]
    assert score(truth, found, image_ids=[1]).figures["AP"] == pytest.approx(1)
    assert score(truth, found, image_ids=[2]).figures["AP"] == 0
    assert found[0].keys() == {"image_id", "category_id", "bbox", "score"}, "the caller's dicts stay as they were"


@pytest.mark.parametrize("seed", range(5))
def test_counts_of_one_give_the_same_ap(tmp_path, seed):
    truths, found = random_case(seed)
    result = score(write_truth(tmp_path / "t.json", truths, range(1, 13)), found)
    assert ap_for_image_counts(result, np.ones(12, int)) == pytest.approx(result.figures["AP"], abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_counts_equal_pycocotools_on_the_resampled_set(tmp_path, seed):
    """Each resample is written out as a data set of its own, an image drawn twice standing in it twice."""
    truths, found = random_case(seed)
    result = score(write_truth(tmp_path / "t.json", truths, range(1, 13)), found)
    draws = np.random.default_rng(seed).integers(0, 12, (4, 12))
    expected = []
    for draw in draws:
        copies = list(enumerate(draw + 1, start=1))
        many = [(new, *truth[1:]) for new, old in copies for truth in truths if truth[0] == old]
        again = [{**one, "image_id": new} for new, old in copies for one in found if one["image_id"] == old]
        expected.append(score(write_truth(tmp_path / "r.json", many, range(1, 13)), again).figures["AP"])
    counts = np.stack([np.bincount(draw, minlength=12) for draw in draws])
    assert ap_for_image_counts(result, counts) == pytest.approx(np.array(expected), abs=1e-12)


def test_counts_of_the_wrong_length_are_refused(tmp_path):
    result = score(write_truth(tmp_path / "t.json", [(1, 1, [0, 0, 10, 10], 0)], [1, 2]), [])
    with pytest.raises(ValueError, match="3 images, the score has 2"):
        ap_for_image_counts(result, np.ones(3, int))
