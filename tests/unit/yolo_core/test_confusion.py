"""The confusion matrix of planted detections, and its pairing against the one-at-a-time definition."""

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from yolo_core.data.coco import load_split
from yolo_core.evaluate.confusion import confusion_matrix, pair_up
from yolo_core.evaluate.detections import Detections


def detection(category, box, score, image=1):
    return {"image_id": image, "category_id": category, "bbox": box, "score": score}


def test_right_wrong_missed_and_invented(tmp_path):
    truths = [(3, [0, 0, 20, 20]), (3, [50, 0, 20, 20]), (9, [0, 50, 20, 20]), (9, [50, 50, 20, 20])]
    (tmp_path / "annotations").mkdir()
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 100, "height": 100} for i in (1, 2)],
        "categories": [{"id": 3, "name": "cat"}, {"id": 9, "name": "dog"}],
        "annotations": [
            {"id": n, "image_id": 1, "category_id": c, "bbox": box, "iscrowd": 0} for n, (c, box) in enumerate(truths)
        ],
    }
    (tmp_path / "annotations/instances_val.json").write_text(json.dumps(content))
    found = [
        detection(3, [0, 0, 20, 20], 0.9),  # right
        detection(9, [50, 0, 20, 18], 0.8),  # cat taken for dog, IoU 0.9
        detection(9, [0, 50, 20, 18], 0.7),  # right, IoU 0.9
        detection(3, [0, 50, 20, 16], 0.9),  # the same dog again, IoU 0.8: the better overlap has it, so false
        detection(9, [50, 50, 8, 20], 0.9),  # IoU 0.4 is not over .45: false, and that dog is missed
        detection(3, [70, 70, 9, 9], 0.2),  # under the score of .25: ignored
        detection(3, [10, 10, 30, 30], 0.6, image=2),  # false
    ]
    counts = confusion_matrix(load_split(tmp_path, "val"), Detections.of(found))
    assert counts.tolist() == [[1, 1, 0], [0, 1, 1], [2, 1, 0]]  # rows: true cat, dog, background


def one_at_a_time(overlaps: np.ndarray, least: float) -> set[tuple[int, int]]:
    left, pairs = overlaps.copy(), set()
    while left.size and left.max() > least:
        row, column = np.unravel_index(left.argmax(), left.shape)
        pairs.add((int(row), int(column)))
        left[row], left[:, column] = 0, 0
    return pairs


@given(st.integers(0, 2**32 - 1), st.integers(0, 7), st.integers(0, 7), st.booleans())
def test_pairs_equal_the_one_at_a_time_definition(seed, rows, columns, ties):
    rng = np.random.default_rng(seed)
    overlaps = rng.random((rows, columns))
    if ties:
        overlaps = np.round(overlaps, 1)
    pairs = pair_up(overlaps, 0.45)
    assert len(np.unique(pairs[:, 0])) == len(np.unique(pairs[:, 1])) == len(pairs)
    expected = one_at_a_time(overlaps, 0.45)
    assert all(overlaps[r, c] > 0.45 for r, c in pairs)
    if ties:  # equal overlaps may go either way; what is left unpaired must not match
        overlaps[pairs[:, 0]], overlaps[:, pairs[:, 1]] = 0, 0
        assert overlaps.max(initial=0) <= 0.45
    else:
        assert {(int(r), int(c)) for r, c in pairs} == expected
