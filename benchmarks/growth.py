"""Growth: time and memory against images, boxes, classes and loader workers. `python -m benchmarks.growth`

Each task runs at growing sizes, each in a process of its own; the exponent is the slope of
log(seconds) over log(size), 1 for linear work. `coco_*` is a file like COCO's training set, outlines included.
"""

import dataclasses
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks.coco_like import HEIGHT, WIDTH, write_instances
from benchmarks.race import Result
from benchmarks.report import Goal, publish

BOXES_PER_IMAGE = 7
LINKS = 1000  # names per file, which file systems limit
IMAGES = (1_000, 10_000, 100_000)
SIZES = {
    "read": IMAGES,
    "load": IMAGES,
    "prepare": (1_000, 4_000, 16_000),
    "prepare_again": (1_000, 4_000, 16_000),
    "anchors": (1_000, 10_000, 100_000),
    "nms_classes": (10, 80, 640),
    "loader_workers": (1, 2, 4),
}
BEST_OF = 2  # the shortest time of each size
COCO_IMAGES, COCO_BOXES = 118_287, 860_001
STEEPEST = 1.15


def main() -> None:
    figures = {}
    with tempfile.TemporaryDirectory(prefix="growth-") as folder:
        for stage, sizes in SIZES.items():
            points = [(size, *min(_apart(stage, size, Path(folder)) for _ in range(BEST_OF))) for size in sizes]
            for size, seconds, gib in points:
                print(f"{stage:>15} {size:>7}: {seconds:8.3f} s {gib:6.2f} GiB", flush=True)
            figures[f"{stage}_exponent"] = _slope([(size, seconds) for size, seconds, _ in points])
        figures["coco_s"], figures["coco_gib"] = _apart("read", COCO_IMAGES, Path(folder))
        figures["coco_load_s"], figures["coco_load_gib"] = _apart("load", COCO_IMAGES, Path(folder))
    limits = {
        "coco_s": ("s", 15.0),
        "coco_gib": ("GiB", 2.0),
        "coco_load_s": ("s", 15.0),
        "coco_load_gib": ("GiB", 2.0),
    }
    goals = [Goal(f"{stage}_exponent", "", "less", STEEPEST) for stage in SIZES]
    goals += [Goal(figure, unit, "less", value) for figure, (unit, value) in limits.items()]
    publish("growth", [Result("ours", figures)], goals, sizes={name: list(sizes) for name, sizes in SIZES.items()})


def _slope(points: list[tuple[int, float]]) -> float:
    """Least squares through (log size, log seconds)."""
    sizes, seconds = (np.log(column) for column in zip(*points, strict=True))
    return float(np.polyfit(sizes, seconds, 1)[0])


def _apart(stage: str, size: int, folder: Path) -> tuple[float, float]:
    """Seconds and peak memory (GiB) of one task, in its own process."""
    command = [sys.executable, "-m", "benchmarks.growth", stage, str(size), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    if done.returncode:
        raise RuntimeError(f"{stage} {size}: {done.stderr[-2000:]}")
    seconds, gib = done.stdout.split()[-2:]
    return float(seconds), float(gib)


def one(stage: str, size: int, folder: Path) -> None:
    """The child: prepare the inputs, then time the work."""
    work = WORK[stage](size, folder)
    began = time.perf_counter()
    work()
    seconds = time.perf_counter() - began
    usage = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(seconds, usage / 2**20)


def _annotations(folder: Path, images: int, outlined: bool = True) -> Path:
    """A COCO layout without images, written once."""
    root = folder / f"{'coco' if outlined else 'boxes'}-{images}"
    boxes = COCO_BOXES if images == COCO_IMAGES else BOXES_PER_IMAGE * images
    if not root.exists():
        (root / "annotations").mkdir(parents=True)
        (root / "images").mkdir()
        write_instances(root / "annotations/instances_train.json", images, boxes, outlined=outlined)
        write_instances(root / "annotations/instances_val.json", 10, 20)
    return root


def _pictures(folder: Path, images: int) -> Path:
    """The same with images: few files under many names."""
    root = _annotations(folder, images)
    rng = np.random.default_rng(0)
    if any((root / "images").iterdir()):
        return root
    for split, count in (("train", images), ("val", 10)):
        target = root / "images" / split
        target.mkdir()
        for number in range(1, count + 1):
            path = target / f"{number:012d}.jpg"
            if number % LINKS == 1:
                source = path
                soft = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
                cv2.imwrite(str(source), cv2.resize(soft, (WIDTH, HEIGHT)))
            else:
                os.link(source, path)
    time.sleep(2.5)  # `prepare` does not trust younger files
    return root


def read(images: int, folder: Path) -> Callable[[], object]:
    """The annotations of a source, as `prepare` reads them."""
    from components.datasets.sources import coco_dir
    from yolo_core.progress import silent

    root = _annotations(folder, images)
    return lambda: coco_dir.read(root, silent)


def load(images: int, folder: Path) -> Callable[[], object]:
    """The annotations of a prepared dataset, as every later stage reads them."""
    from yolo_core.data.coco import load_split

    root = _annotations(folder, images, outlined=False)
    return lambda: load_split(root, "train")


def prepare(images: int, folder: Path, again: bool = False) -> Callable[[], object]:
    """The whole stage; again: when no image has changed."""
    from components import parameter_file
    from components.stages import prepare as stage

    root, target = _pictures(folder, images), folder / f"prepared-{images}"
    settings = parameter_file.load(Path("params.yaml"), ["prepare.source=coco-dir", f"prepare.location={root}"])

    def once() -> object:
        return stage.run(settings, out=target / "out", work=target / "work")

    shutil.rmtree(target, ignore_errors=True)
    if again:
        once()
    return once


def anchors(boxes: int, folder: Path) -> Callable[[], object]:
    """Nine anchors for many boxes."""
    from benchmarks.anchors import SETTINGS, box_sides
    from yolo_core.anchors import fit

    sides = box_sides(boxes)
    settings = dataclasses.replace(SETTINGS, generations=300)
    fit(sides[:100], [3, 3, 3], anchor_t=4.0, settings=dataclasses.replace(settings, generations=1))  # compiles
    return lambda: fit(sides, [3, 3, 3], anchor_t=4.0, settings=settings)


def nms_classes(classes: int, folder: Path) -> Callable[[], object]:
    """NMS of 20 images with 1,000 candidates each and many classes."""
    from yolo_core.evaluate.nms import nms
    from yolo_core.evaluate.suppression import Suppression

    generator = torch.Generator().manual_seed(0)
    centres, sides = torch.rand(20, 1000, 2, generator=generator) * 600, torch.rand(20, 1000, 2, generator=generator)
    scores = torch.rand(20, 1000, classes, generator=generator) ** 6
    rows = torch.cat([centres, 5 + 60 * sides, torch.ones(20, 1000, 1), scores], dim=2)
    suppression = Suppression(conf=0.001, iou=0.65, max_detections=300)
    nms(rows[:1], suppression)  # compiles
    return lambda: nms(rows, suppression)


def loader_workers(workers: int, folder: Path) -> Callable[[], object]:
    """One epoch of 256 images; only the number of processes grows."""
    from yolo_core.data.coco import load_split
    from yolo_core.data.loader import train_batches
    from yolo_core.hyperparameters import Hyperparameters

    root = _pictures(folder, SIZES["prepare"][0])
    split = load_split(root, "train").subset(256)
    arguments = {"hyp": Hyperparameters(), "size": 320, "batch": 16, "seed": 0, "epoch": 0, "workers": workers}
    return lambda: sum(1 for _ in train_batches(split, **arguments))


WORK: dict[str, Callable[[int, Path], Callable[[], object]]] = {
    "read": read,
    "load": load,
    "prepare": prepare,
    "prepare_again": lambda images, folder: prepare(images, folder, again=True),
    "anchors": anchors,
    "nms_classes": nms_classes,
    "loader_workers": loader_workers,
}

if __name__ == "__main__":
    main() if len(sys.argv) == 1 else one(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
