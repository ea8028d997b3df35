"""COCO as COCO, CVAT, Roboflow, Label Studio and FiftyOne write it."""

import json
from collections.abc import Sequence
from typing import Any

from exports.pictures import Box, Export, Picture


def coco(export: Export) -> None:
    """instances_train2017.json beside train2017/, or images/train/."""
    categories = _categories(export, 1, supercategory="thing")
    year = export.pick(["2017", ""])
    top = export.pick(["images/", ""])
    for split, pictures in export.subsets.items():
        named = f"{split}{year}" if split in ("train", "val") or year else split
        export.put(f"annotations/instances_{named}.json", _document(export, pictures, categories, 1))
        for picture in pictures:
            export.put(f"{top}{named}/{picture.file}", picture.data)


def cvat(export: Export) -> None:
    """A file per subset, "default" without any; earlier versions put all images into one folder."""
    categories = _categories(export, 1, supercategory="")
    divided = export.pick([True, False])
    for split, pictures in export.subsets.items():
        subset = split or "default"
        export.put(f"annotations/instances_{subset}.json", _document(export, pictures, categories, 1))
        for picture in pictures:
            export.put(f"images/{subset}/{picture.file}" if divided else f"images/{picture.file}", picture.data)


def roboflow(export: Export) -> None:
    """Category 0 names the project; ids start at 0 in each folder; names get a digest."""
    project = "pets-a1B2"
    categories = [{"id": 0, "name": project, "supercategory": "none"}]
    categories += _categories(export, 1, supercategory=project)
    for split, pictures in export.subsets.items():
        folder = {"val": "valid", "": "train"}.get(split, split)
        renamed = [roboflow_named(picture) for picture in pictures]
        export.put(f"{folder}/_annotations.coco.json", _document(export, renamed, categories, 0))
        for picture in renamed:
            export.put(f"{folder}/{picture.file}", picture.data)


def roboflow_named(picture: Picture) -> Picture:
    """`a.JPG` becomes `a_jpg.rf.<32 hex digits>.jpg`, whatever its folder."""
    stem = f"{picture.stem}_{picture.ending[1:].lower()}.rf.{picture.number:032x}"
    return Picture(picture.number, "", stem, picture.ending.lower(), picture.boxes)


def label_studio(export: Export) -> None:
    r"""result.json; names start with `images/`, on Windows with `images\`, and have a digest in front."""
    (pictures,) = export.subsets.values()
    prefix = export.pick(["images/", "images\\", "images\\\\", ""])
    renamed = [label_studio_named(picture) for picture in pictures]
    export.put("result.json", _document(export, renamed, _categories(export, 0), 0, prefix))
    for picture in renamed:
        export.put(f"images/{picture.file}", picture.data)


def label_studio_named(picture: Picture) -> Picture:
    stem = f"{picture.number:08x}-{picture.stem.replace(' ', '_')}"
    return Picture(picture.number, "", stem, picture.ending, picture.boxes)


def fiftyone(export: Export) -> None:
    (pictures,) = export.subsets.values()
    export.put("labels.json", _document(export, pictures, _categories(export, 1, supercategory=None), 1))
    for picture in pictures:
        export.put(f"data/{picture.file}", picture.data)


def _categories(export: Export, first: int, **more: object) -> list[dict[str, Any]]:
    return [{"id": number, "name": name, **more} for number, name in enumerate(export.classes, first)]


def _document(
    export: Export, pictures: Sequence[Picture], categories: list[dict[str, Any]], first: int, prefix: str = ""
) -> str:
    ids = [record["id"] for record in categories if record["name"] in export.classes]
    images = [
        {
            "id": number,
            "license": 1,
            "file_name": prefix + picture.file,
            "width": picture.size[0],
            "height": picture.size[1],
        }
        for number, picture in enumerate(pictures, first)
    ]
    found = [(image, box) for image, picture in enumerate(pictures, first) for box in picture.boxes]
    annotations = [_annotation(export, n, image, ids, box) for n, (image, box) in enumerate(found, first)]
    document = {
        "info": {"year": 2024},
        "licenses": [{"id": 1, "name": "any", "url": ""}],
        "categories": export.shuffled(categories),
        "images": export.shuffled(images),
        "annotations": export.shuffled(annotations),
    }
    return json.dumps(document, ensure_ascii=export.pick([True, False]), indent=export.pick([None, 2]))


def _annotation(export: Export, number: int, image: int, ids: list[int], box: Box) -> dict[str, Any]:
    index, *xywh = box
    if export.pick([True, False]):
        xywh = [int(value) if value == int(value) else value for value in xywh]
    record: dict[str, Any] = {"id": number, "image_id": image, "category_id": ids[index], "bbox": xywh}
    x, y, w, h = xywh
    outline = [x, y, x + w, y, x + w, y + h, x, y + h]
    more = {"area": w * h, "iscrowd": export.pick([0, False, 0.0]), "segmentation": export.pick([[], [outline]])}
    return record | {key: value for key, value in more.items() if key != "iscrowd" or export.pick([True, False])}
