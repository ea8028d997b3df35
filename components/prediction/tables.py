"""All detections in one file for other tools, made from the records when the last image is done."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import TextIO

from components.prediction.records import Folder, Seen
from yolo_core.atomic import replaced

COCO, CSV = "coco.json", "detections.csv"
COLUMNS = ("source", "frame", "label", "score", "x1", "y1", "x2", "y2")


def write_csv(folder: Folder) -> None:
    """detections.csv: a row per object; corners in px, `frame` empty for images."""
    with replaced(folder.path / CSV) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for record in _images(folder):
            for one in record["detections"]:
                rows.writerow([record["source"], record["frame"], one["label"], one["score"], *one["xyxy"]])


def write_coco(folder: Folder, classes: Sequence[str]) -> None:
    """coco.json: a COCO file with images, annotations that have a score, and categories numbered from 1."""
    with replaced(folder.path / COCO) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write('{"images": [')
        _write_list(file, (_coco_image(number, record) for number, record in enumerate(_images(folder), 1)))
        file.write('], "annotations": [')
        _write_list(file, _coco_annotations(folder))
        categories = [{"id": number, "name": name} for number, name in enumerate(classes, 1)]
        file.write(f'], "categories": {json.dumps(categories)}}}\n')


def _images(folder: Folder) -> Iterator[Seen]:
    return (record for record in folder.read() if "detections" in record)


def _write_list(file: TextIO, records: Iterator[Mapping[str, object]]) -> None:
    for number, record in enumerate(records):
        file.write((",\n" if number else "\n") + json.dumps(record))


def _coco_image(number: int, record: Seen) -> dict[str, object]:
    name = record["source"] if record["frame"] is None else f"{record['source']}#{record['frame']}"
    return {"id": number, "file_name": name, "width": record["width"], "height": record["height"]}


def _coco_annotations(folder: Folder) -> Iterator[dict[str, object]]:
    numbers = count(1)
    for image_id, record in enumerate(_images(folder), 1):
        for one in record["detections"]:
            x1, y1, x2, y2 = one["xyxy"]
            box = [x1, y1, round(x2 - x1, 3), round(y2 - y1, 3)]
            yield {
                "id": next(numbers),
                "image_id": image_id,
                "category_id": one["class_id"] + 1,
                "bbox": box,
                "area": round(box[2] * box[3], 3),
                "iscrowd": 0,
                "score": one["score"],
            }
