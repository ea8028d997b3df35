"""Detections as columns, to COCO results and back."""

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from planted import detections

from yolo_core.evaluate.detections import Detections

NUMBER = st.floats(0, 1e6).map(lambda value: round(value, 3))
ROWS = st.lists(
    st.tuples(st.integers(-5, 2**40), st.integers(0, 90), st.lists(NUMBER, min_size=4, max_size=4), st.floats(1e-9, 1))
)


@given(ROWS)
def test_the_file_is_json_with_a_detection_a_line_and_reads_back(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("detections") / "d.json"
    found = detections(*rows)
    found.write(path)
    lines = path.read_text().splitlines()
    assert len(lines) == max(len(rows), 1) + 2
    records = json.loads(path.read_text())
    assert records == found.records()
    assert [line.removesuffix(",") for line in lines[1:-1] if line] == [json.dumps(one) for one in records]
    assert Detections.of(records).records() == records


def test_rows_are_joined_chosen_and_found_by_image():
    a, b = detections((2, 1, [0, 0, 1, 1], 0.5), (1, 1, [0, 0, 2, 2], 0.4)), detections((2, 3, [0, 0, 3, 3], 0.9))
    both = Detections.joined([a, b])
    assert both.records() == a.records() + b.records()
    assert both.where(both.score > 0.45).score.tolist() == [0.5, 0.9]
    assert both.by_image()(2).category_id.tolist() == [1, 3]
    assert len(both.by_image()(7)) == 0
    nothing = Detections.joined([])
    assert len(nothing) == 0
    assert nothing.xywh_px.shape == (0, 4)
    assert nothing.image_id.dtype == np.int64
