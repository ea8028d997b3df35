"""What pasting of objects adds to a training sample of YOLOv7's recipe: CPU milliseconds, decoded images in memory.

Rounds with and without alternate, so that other work on the machine slows both; the fastest of each counts.
"""

import itertools
import os
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import typer

from benchmarks.loader import DEFAULT_DATA, IMAGES, SIZES, Folder, _data, _folder
from yolo_core.data.mosaic import training_sample
from yolo_core.models import get_spec

PUBLISHED = 0.15


def main(data: Folder = Path(os.environ.get("COCO128", DEFAULT_DATA)), rounds: int = 5) -> None:
    cv2.setNumThreads(0)
    recipe = get_spec("yolov7").hyp
    ways = [recipe.replace(paste_in=probability) for probability in (0.0, PUBLISHED, 1.0)]
    # The first round decodes and compiles; it is never the fastest.
    with tempfile.TemporaryDirectory(prefix="paste-") as work:
        folder = _folder(data, work, "ours")["folder"]
        for size in SIZES:
            images, planes = _data(folder, size, "ram"), np.empty((3, size, size), np.uint8)
            seconds, labels = np.zeros((rounds + 1, len(ways))), [0] * len(ways)
            for epoch, (way, hyp) in itertools.product(range(rounds + 1), enumerate(ways)):
                began = time.process_time()
                for index in range(IMAGES):
                    labels[way] += len(training_sample(images, hyp, size, 0, epoch, index, None, planes)[1])
                seconds[epoch, way] = time.process_time() - began
            without, published, always = seconds.min(axis=0) / IMAGES * 1000
            pasted = (labels[2] - labels[0]) / ((rounds + 1) * IMAGES)
            typer.echo(
                f"{size} px: {without:.2f} ms without, {published:.2f} ms at {PUBLISHED}, {always:.2f} ms always, "
                f"{pasted:.1f} objects each time"
            )


if __name__ == "__main__":
    typer.run(main)
