"""The source `digits`: scikit-learn's handwritten digits on crops of its two sample photographs."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from components.datasets.raw import SPLITS, Category, RawBox, RawDataset, RawImage, RawSplit, Resolved
from components.params import Params
from yolo_core.data.digits import scene
from yolo_core.progress import Progress

VAL_EVERY = 5  # every fifth handwriting sample is drawn on validation images only
JPEG_QUALITY = 95
INFO = {
    "description": "Handwritten digits on photographs, composed by scaled-yolov4",
    "version": "1",
    "url": "https://archive.ics.uci.edu/ml/datasets/Optical+Recognition+of+Handwritten+Digits",
    "contributor": "digits: E. Alpaydin, C. Kaynak (UCI); photographs: danielbuechele, vultilion (Flickr)",
}
LICENSES = [{"id": 1, "name": "CC BY 2.0 (photographs)", "url": "https://creativecommons.org/licenses/by/2.0/"}]


def load(params: Params, *, scratch: Path, downloads: Path, progress: Progress) -> RawDataset:
    """Draw both splits and write their JPEGs to `scratch`; every image is determined by (seed, split, index)."""
    from sklearn.datasets import load_digits, load_sample_images

    pixels, labels = load_digits(return_X_y=True)
    glyphs = np.asarray(pixels).reshape(-1, 8, 8) / 16.0
    photographs = load_sample_images().images
    held_out = np.arange(len(glyphs)) % VAL_EVERY == 0
    counts = {"train": params.prepare.digits.train_images, "val": params.prepare.digits.val_images}
    splits = {}
    for number, split in enumerate(SPLITS):
        mine = held_out if split == "val" else ~held_out
        draw = partial(
            scene, glyphs[mine], np.asarray(labels)[mine], photographs, size_px=params.prepare.digits.image_size
        )
        keys = [(params.seed, number, index) for index in range(counts[split])]
        folder = scratch / split
        folder.mkdir(parents=True)
        splits[split] = _write(draw, keys, folder, progress, f"draw {split} images")
    categories: list[Category] = [{"id": digit, "name": str(digit), "supercategory": "digit"} for digit in range(10)]
    return RawDataset(categories, splits, dict(INFO), list(LICENSES))


def resolve(params: Params) -> Resolved:
    """Fingerprint the digits by the seed: the parameters determine everything."""
    return Resolved(f"seed {params.seed}")


def _write(draw: partial, keys: list[tuple[int, int, int]], folder: Path, progress: Progress, label: str) -> RawSplit:
    """Draw and write a scene per key; image ids start at 1."""

    def one(item: tuple[int, tuple[int, int, int]]) -> tuple[RawImage, list[list[int]]]:
        image_id, key = item
        drawn = draw(key=key)
        path = folder / f"{image_id:06d}.jpg"
        encoded = cv2.imencode(".jpg", drawn.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
        path.write_bytes(encoded.tobytes())
        height, width = drawn.image.shape[:2]
        return RawImage(image_id, path.name, path, (width, height), {"license": 1}), np.column_stack(
            [drawn.xywh_px, drawn.labels]
        ).tolist()

    raw = RawSplit([], [])
    with ThreadPoolExecutor() as pool:
        for image, labelled in progress(pool.map(one, enumerate(keys, 1)), label, total=len(keys)):
            raw.images.append(image)
            for *xywh, digit in labelled:
                box_id = len(raw.boxes) + 1
                raw.boxes.append(RawBox(box_id, image.id, digit, xywh, f"annotation {box_id}"))
    return raw
