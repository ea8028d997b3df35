"""Reading COCO files: the fast and the slow path agree, and a file of COCO's size fits limits of time and memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.coco_like import write_instances
from components.datasets.sources import coco_json

FIELDS = coco_json.Annotation.__struct_fields__
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
values = st.just([]) | numbers | st.booleans() | st.none() | st.text("abc") | st.lists(numbers, max_size=5)
records = st.dictionaries(st.sampled_from([*FIELDS, "segmentation", "other"]), values)


@given(st.lists(records, max_size=5), st.booleans())
def test_every_field_is_what_the_standard_library_reads(tmp_path_factory, annotations, irregular):
    file = tmp_path_factory.mktemp("coco") / "a.json"
    document = {"images": [], "annotations": annotations, "categories": [], "info": float("nan") if irregular else 0}
    file.write_text(json.dumps(document))
    read = coco_json.read(file).annotations
    seen = [repr({field: getattr(one, field) for field in FIELDS}) for one in read]
    assert seen == [repr({field: one.get(field) for field in FIELDS}) for one in annotations]


def test_an_annotation_that_is_not_an_object_is_left_unchanged(tmp_path):
    file = tmp_path / "a.json"
    file.write_text('{"images": [], "annotations": [7, {"id": 1}], "categories": []}')
    assert coco_json.read(file).annotations == [7, coco_json.Annotation(id=1)]


MEASURE = """
import sys
from pathlib import Path
import torch
from components.datasets.sources import coco_dir
from yolo_core.device import peak_memory
from yolo_core.progress import silent
before = peak_memory(torch.device("cpu"))
boxes = len(coco_dir.read(Path(sys.argv[1]), silent).splits["train"].boxes)
print(boxes, (peak_memory(torch.device("cpu")) - before) / 2**30)
"""


@pytest.mark.slow
def test_a_file_of_cocos_size_is_read_in_little_memory(tmp_path: Path):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "images").mkdir()
    write_instances(tmp_path / "annotations/instances_train.json", images=118_287, boxes=860_001)
    write_instances(tmp_path / "annotations/instances_val.json", images=10, boxes=20)
    done = subprocess.run([sys.executable, "-c", MEASURE, tmp_path], capture_output=True, text=True, check=True)
    boxes, gib = (float(figure) for figure in done.stdout.split())
    assert boxes == 860_001
    assert gib < 2
