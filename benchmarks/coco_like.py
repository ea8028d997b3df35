"""Writes COCO instances files of any size that resemble those of COCO 2017, outlines included."""

import json
from pathlib import Path

import numpy as np

WIDTH, HEIGHT, CLASSES = 640, 480, 80
OUTLINES = 2000  # different ones; a file repeats them
CROWD = '{"counts":[272,2,4,4,4,4,2,9,1,2,16,43,143,24],"size":[480,640]}'


def write_instances(path: Path, images: int, boxes: int, seed: int = 0, outlined: bool = True) -> None:
    """Write a file with `images` records of 640x480 px and `boxes` annotations of 80 classes, one in 80 a crowd.

    outlined: as in the published files; `prepare` omits outlines.
    """
    rng = np.random.default_rng(seed)
    outlines = [_outline(rng, points) for points in rng.gamma(1.6, 18, OUTLINES)]
    owners, classes = np.sort(rng.integers(1, images + 1, boxes)), rng.integers(1, CLASSES + 1, boxes)
    corners, sides = rng.uniform(0, [500, 350], (boxes, 2)), rng.uniform(1, [140, 130], (boxes, 2))
    crowds, chosen = rng.random(boxes) < 1 / 80, rng.integers(0, OUTLINES, boxes)
    with path.open("w", encoding="utf-8") as file:
        file.write('{"info":{"description":"made"},"licenses":[],"images":[')
        file.write(",".join(_image(number) for number in range(1, images + 1)))
        file.write('],"annotations":[')
        for k in range(boxes):
            (x, y), (w, h) = corners[k], sides[k]
            outline = f'"segmentation":{CROWD if crowds[k] else outlines[chosen[k]]},' if outlined else ""
            file.write(
                f'{"," if k else ""}{{{outline}"area":{0.6 * w * h:.4f},"iscrowd":{int(crowds[k])},'
                f'"image_id":{owners[k]},"bbox":[{x:.2f},{y:.2f},{w:.2f},{h:.2f}],'
                f'"category_id":{classes[k]},"id":{k + 1}}}'
            )
        categories = [{"supercategory": "made", "id": k, "name": f"class {k}"} for k in range(1, CLASSES + 1)]
        file.write(f'],"categories":{json.dumps(categories)}}}')


def _outline(rng: np.random.Generator, points: float) -> str:
    return "[[" + ",".join(f"{value:.2f}" for value in rng.uniform(0, 480, 2 * max(3, int(points)))) + "]]"


def _image(number: int) -> str:
    url = f"http://images.cocodataset.org/train2017/{number:012d}.jpg"
    return (
        f'{{"license":{number % 8 + 1},"file_name":"{number:012d}.jpg","coco_url":"{url}","height":{HEIGHT},'
        f'"width":{WIDTH},"date_captured":"2013-11-14 11:18:45","flickr_url":"{url}","id":{number}}}'
    )
