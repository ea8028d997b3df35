"""Whatever a tool exports is read as it was written: every image, its side of the split, and its boxes in pixels."""

import hashlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from coco_source import parameters
from exports import coco, voc, yolo
from exports.pictures import Export, data_sets
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from components.stages import prepare

DIVIDED = (
    *(coco.coco, coco.cvat, coco.roboflow),
    *(yolo.ultralytics, yolo.darknet, yolo.cvat, yolo.cvat_ultralytics),
    *(yolo.roboflow, yolo.roboflow_darknet, yolo.fiftyone),
    *(voc.kit, voc.cvat, voc.roboflow),
)
UNDIVIDED = (
    *(write for write in DIVIDED if write is not coco.coco),
    *(coco.label_studio, coco.fiftyone, yolo.label_studio, yolo.labelimg, voc.labelimg, voc.label_studio),
)
CASES = [(write, True) for write in DIVIDED] + [(write, False) for write in UNDIVIDED]
QUICK, SLOW = 3, 60  # examples of each tool
PHASES = [Phase.generate, Phase.shrink]
CLOSE_PX = 0.002  # six decimals of a fraction of 320 px, and three of a pixel

Boxes = list[tuple[str, list[float]]]
"""Class name and left, top, width, height, px."""


def name(case: tuple[Callable[[Export], None], bool]) -> str:
    write, divided = case
    return f"{write.__module__.rpartition('.')[2]}-{write.__name__}-{'divided' if divided else 'whole'}"


@pytest.mark.parametrize("count", [QUICK, pytest.param(SLOW, marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", CASES, ids=name)
def test_an_export_is_read_as_it_was_written(
    case: tuple[Callable[[Export], None], bool], count: int, tmp_path: Path
) -> None:
    write, divided = case

    @settings(
        max_examples=count,
        derandomize=count == QUICK,
        database=None,
        phases=PHASES,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data(), data_sets(divided))
    def holds(data: st.DataObject, written: tuple) -> None:
        classes, subsets = written
        with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
            # The folders above a data set must not matter.
            root = Path(folder, data.draw(st.sampled_from(["set", "images", "train/labels", "a b"])))
            root.mkdir(parents=True)
            write(Export(root, classes, subsets, data.draw))
            assert read(root, Path(folder, "out"), divided) == expected(classes, subsets, divided)

    holds()


def read(root: Path, out: Path, divided: bool) -> dict[str, tuple[str, Boxes]]:
    """Split and boxes of each image by the SHA-256 of its file; nothing may be quarantined."""
    options = [] if divided else ["prepare.val_fraction=0.5"]
    options += ["prepare.source=auto", f"prepare.location={json.dumps(str(root))}", "prepare.max_bad_fraction=0"]
    prepare.run(parameters(*options), out=out)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["quarantine"] == []
    found: dict[str, tuple[str, Boxes]] = {}
    for split in ("train", "val"):
        document = json.loads((out / f"annotations/instances_{split}.json").read_text())
        classes = {record["id"]: record["name"] for record in document["categories"]}
        for image in document["images"]:
            boxes = [
                (classes[record["category_id"]], [snapped(value) for value in record["bbox"]])
                for record in document["annotations"]
                if record["image_id"] == image["id"]
            ]
            digest = manifest["files"][f"images/{split}/{image['file_name']}"]
            assert digest not in found
            found[digest] = (split if divided else "", sorted(boxes))
    return found


def snapped(value: float) -> float:
    """The nearest quarter of a pixel, in which boxes are written, if it is as near as rounding leaves it."""
    quarter = round(value * 4) / 4
    return quarter if abs(value - quarter) <= CLOSE_PX else value


def expected(classes: list[str], subsets: dict, divided: bool) -> dict[str, tuple[str, Boxes]]:
    """Of the subsets that are read: `test` is left out if there are others."""
    return {
        hashlib.sha256(picture.data).hexdigest(): (
            split if divided else "",
            sorted((classes[index], [float(value) for value in xywh]) for index, *xywh in picture.boxes),
        )
        for split, pictures in subsets.items()
        for picture in pictures
        if split != "test"
    }
