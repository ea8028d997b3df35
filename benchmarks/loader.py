"""Training samples of one process: mosaic of four, affine, colour jitter, flip and labels, at 640 and 416 px.

Two sources of images: `cache`, decoded and resized before the measurement and kept in memory (ours: in the mapped
file), and `jpeg`, files alone. From files ours decodes every tile (`cache: none`); ultralytics keeps recently decoded
images and builds mosaics from them. `first_epoch` is ours when it keeps them too: it starts from files, and each is
decoded once. Time is CPU time, all threads of the process together.
"""

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import cv2
import typer

from benchmarks import peers
from benchmarks.contender import Contender, Figures, Missing, Round
from benchmarks.race import Result, race
from benchmarks.report import Goal, publish

SIZES, WAYS = (640, 416), ("cache", "jpeg")
ROWS = [f"{size}-{way}" for size in SIZES for way in WAYS]
STEADY, FIRST_EPOCH = "images_per_cpu_second", "first_epoch"
GOALS = {
    "640-cache": [Goal(STEADY, "images/s", "more", value=550, ratio=2.4)],
    "416-cache": [Goal(STEADY, "images/s", "more", value=1300, ratio=2.4)],
    "640-jpeg": [Goal(name, "images/s", "more", value=160) for name in (FIRST_EPOCH, STEADY)],
    "416-jpeg": [Goal(STEADY, "images/s", "more")],
}
SAMPLES = {"cache": 128, "jpeg": 48}  # of one round and row
HYP = {"hsv_h": 0.015, "hsv_s": 0.7, "hsv_v": 0.4, "translate": 0.1, "scale": 0.5}
FLIP = 0.5
SPLIT = "train2017"
DEFAULT_DATA = Path(__file__).parents[2] / "shared" / "data" / "coco128"

IMAGES = 128

Kind = Literal["disk", "ram", "none"]
Sample = Callable[[int], object]  # makes the sample of one index
Folder = Annotated[Path, typer.Option("--data", help="folder with images/train2017 and annotations of COCO")]


def main(data: Folder = Path(os.environ.get("COCO128", DEFAULT_DATA)), rounds: int = 3) -> None:
    if not (data / "images" / SPLIT).is_dir():
        raise typer.BadParameter(f"{data}: no images/{SPLIT}; give a folder of COCO photographs", param_hint="--data")
    with tempfile.TemporaryDirectory(prefix="loader-") as work:
        contenders = [
            Contender("ours", "benchmarks.loader:ours", _folder(data, work, "ours")),
            *(
                Contender(
                    name,
                    f"benchmarks.peers.loaders:{peer.replace('-', '_').lower()}",
                    _folder(data, work, peer),
                    path=peers.path(peer),
                    env={"YOLO_CONFIG_DIR": work, "YOLO_OFFLINE": "true", "YOLO_VERBOSE": "false"},
                )
                for name, peer in {
                    "ultralytics": "ultralytics",
                    "ScaledYOLOv4 (large)": "yolov4-large",
                    "yolov7": "yolov7",
                    "YOLOX": "YOLOX",
                }.items()
            ),
            Contender("floor", "benchmarks.loader:floor", _folder(data, work, "floor")),
        ]
        *results, least = race(contenders, rounds)
    for row in ROWS:
        own = [Result(r.name, _of_row(r.figures, row), r.missing) for r in results]
        publish(f"loader-{row}", own, GOALS[row], images=IMAGES, threads=1, floor=_of_row(least.figures, row))


def _of_row(figures: Figures, row: str) -> Figures:
    prefix = f"{row} "
    return {name.removeprefix(prefix): value for name, value in figures.items() if name.startswith(prefix)}


def _folder(data: Path, work: str, name: str) -> dict[str, str]:
    """The images as the contenders expect them, one folder each, because peers write caches next to them.

    images/train2017, labels/train2017/*.txt in YOLO's format, annotations in COCO's, and the same under the names
    of a prepared folder.
    """
    folder, source = Path(work) / name, data / "annotations" / f"instances_{SPLIT}.json"
    for part in ("images", "labels", "annotations"):
        (folder / part).mkdir(parents=True)
    (folder / "labels" / SPLIT).mkdir()
    (folder / "images" / "train").symlink_to(data / "images" / SPLIT)
    (folder / "annotations" / "instances_train.json").symlink_to(source)
    (folder / "annotations" / f"instances_{SPLIT}.json").symlink_to(source)
    content = json.loads(source.read_text())
    (folder / "images" / SPLIT).mkdir()
    (folder / SPLIT).symlink_to(folder / "images" / SPLIT)  # where YOLOX looks
    classes = {c["id"]: i for i, c in enumerate(sorted(content["categories"], key=lambda c: c["id"]))}
    lines = {image["id"]: [] for image in content["images"]}
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    for found in content["annotations"]:
        (x, y, w, h), (width, height) = found["bbox"], sizes[found["image_id"]]
        if not found.get("iscrowd") and w and h:
            box = ((x + w / 2) / width, (y + h / 2) / height, w / width, h / height)
            lines[found["image_id"]].append(" ".join(str(v) for v in (classes[found["category_id"]], *box)))
    for image in content["images"]:
        file = Path(image["file_name"])
        (folder / "images" / SPLIT / file).symlink_to(data / "images" / SPLIT / file)
        (folder / "labels" / SPLIT / file.with_suffix(".txt")).write_text("\n".join(lines[image["id"]]))
    return {"folder": str(folder)}


def timed(make: Callable[[int, bool], Sample]) -> Round:
    """A round of samples for every row; make(size, cached) prepares one row."""
    cv2.setNumThreads(0)
    samples = {f"{size}-{way}": make(size, way == "cache") for size in SIZES for way in WAYS}
    drawn = dict.fromkeys(samples, 0)

    def once() -> Figures:
        figures = {}
        for row, sample in samples.items():
            first, count = drawn[row], SAMPLES[row.partition("-")[2]]
            began = time.process_time()
            for index in range(first, first + count):
                sample(index)
            figures[f"{row} {STEADY}"] = count / (time.process_time() - began)
            drawn[row] += count
        return figures

    return once


def ours(folder: str) -> Round:
    import numpy as np

    from yolo_core.data.mosaic import training_sample

    hyp = _hyp()

    def make(size: int, kind: Kind) -> Sample:
        data, planes = _data(folder, size, kind), np.empty((3, size, size), np.uint8)
        return lambda index: training_sample(data, hyp, size, 0, index // len(data), index % len(data), None, planes)

    steady = timed(lambda size, cached: make(size, "disk" if cached else "none"))

    def once() -> Figures:
        figures = steady()
        for size in SIZES:
            began = time.process_time()
            sample = make(size, "ram")
            for index in range(IMAGES):
                sample(index)
            figures[f"{size}-jpeg {FIRST_EPOCH}"] = IMAGES / (time.process_time() - began)
        return figures

    return once


def floor(folder: str) -> Round:
    """The unavoidable work: drawing and jitter of images in memory with known random numbers; from files, decoding."""
    import numpy as np

    from yolo_core.data import mosaic

    def make(size: int, cached: bool) -> Sample:
        data, hyp, planes = _data(folder, size, "disk"), _hyp(), np.empty((3, size, size), np.uint8)
        with _recorded(data, mosaic) as calls:
            for index in range(len(data)):
                calls.append([])
                mosaic.training_sample(data, hyp, size, 0, 0, index, None, planes)
        if not cached:
            return lambda index: [data.load(seen) for name, seen in calls[index % len(data)] if name == "image"]

        def sample(index: int) -> None:
            for name, arguments in calls[index % len(data)]:
                if name != "image":
                    plain[name](*arguments)

        plain = {"draw": mosaic.draw, "jitter": mosaic.jitter}
        return sample

    return timed(make)


@contextmanager
def _recorded(data, mosaic) -> Iterator[list[list[tuple]]]:
    """The images that each sample reads, and its calls of the compiled loops with their arguments."""
    calls: list[list[tuple]] = []
    plain = {"draw": mosaic.draw, "jitter": mosaic.jitter}
    image = data.image

    def recording(name: str) -> Callable:
        return lambda *arguments: (calls[-1].append((name, arguments)), plain[name](*arguments))[1]

    try:
        data.image = lambda index, size: (calls[-1].append(("image", index)), image(index, size))[1]
        for name in plain:
            setattr(mosaic, name, recording(name))
        yield calls
    finally:
        del data.image
        for name, function in plain.items():
            setattr(mosaic, name, function)


def _hyp():
    from yolo_core.hyperparameters import Hyperparameters

    return Hyperparameters(**HYP, flip_lr=FLIP, mosaic=1.0, mixup=0.0)


def _data(folder: str, size: int, kind: Kind):
    from yolo_core.data.coco import CacheSettings, load_split

    data = load_split(folder, "train", cache=CacheSettings(kind, folder=Path(folder) / "cache"))
    if data.open_cache(size) is None and kind != "none":
        raise Missing("not enough space for decoded images")
    return data


if __name__ == "__main__":
    typer.run(main)
