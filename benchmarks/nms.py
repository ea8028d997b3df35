"""NMS of one image's predictions at the thresholds of evaluation, one thread."""

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from benchmarks import peers
from benchmarks.contender import Contender, Figures, Round
from benchmarks.race import race
from benchmarks.report import Goal, publish

CONF, IOU, MAX_DETECTIONS = 0.001, 0.65, 300
ROWS, CLASSES = 25_200, 80  # of a 640 x 640 image: three levels of 80, 40 and 20 cells, three anchors each
CANDIDATE_ROWS, CANDIDATES = 2_000, 7_700  # rows over CONF, and pairs of row and class over it
OBJECTS, MISTAKEN_FOR = 60, 6  # objects in the image, and classes each may be mistaken for
CALLS = 20  # of one round

Suppress = Callable[[Tensor], int]


def main() -> None:
    names = {
        "yolov7": "yolov7",
        "ScaledYOLOv4 (csp)": "yolov4-csp",
        "ultralytics": "ultralytics",
        "YOLOX (best class only)": "YOLOX",
    }
    results = race(
        [
            Contender("ours", "benchmarks.nms:ours"),
            *(
                Contender(name, f"benchmarks.peers.nms:{peer.replace('-', '_').lower()}", path=peers.path(peer))
                for name, peer in names.items()
            ),
        ],
        rounds=5,
    )
    goal = Goal("ms_per_image", "ms", "less", value=2)
    publish("nms", results, [goal], rows=ROWS, candidate_rows=CANDIDATE_ROWS, candidates=CANDIDATES, threads=1)


def ours() -> Round:
    from yolo_core.evaluate.nms import nms
    from yolo_core.evaluate.suppression import Suppression

    suppression = Suppression(CONF, IOU, MAX_DETECTIONS)
    return timed(lambda predictions: len(nms(predictions, suppression)[0]))


def timed(suppress: Suppress, layout: Callable[[Tensor], Tensor] = lambda given: given) -> Round:
    """A round of CALLS calls, each on its own copy, because some peers modify their input.

    layout: converts to the output format of a peer's heads, outside the measured time.
    """
    torch.set_num_threads(1)
    given = layout(predictions())

    def once() -> Figures:
        seconds, kept = 0.0, 0
        for _ in range(CALLS):
            copy = given.clone()
            began = time.perf_counter()
            kept = suppress(copy)
            seconds += time.perf_counter() - began
        return {"ms_per_image": seconds / CALLS * 1000, "kept": kept}

    return once


def predictions(seed: int = 0) -> Tensor:
    """(1, N, 5+K) decoded predictions: clusters of boxes around objects, on a background of very low scores.

    A row scores its object's class high, and lower some of the few classes that the object is mistaken for.
    """
    rng = np.random.default_rng(seed)
    rows = np.empty((ROWS, 5 + CLASSES), np.float32)
    rows[:, :2], rows[:, 2:4] = rng.uniform(0, 640, (ROWS, 2)), np.exp(rng.uniform(2, 5.5, (ROWS, 2)))
    rows[:, 4], rows[:, 5:] = rng.uniform(0, 0.9 * CONF, ROWS), rng.uniform(0, 0.1, (ROWS, CLASSES))
    centres, sizes = rng.uniform(50, 590, (OBJECTS, 2)), np.exp(rng.uniform(2.5, 5.5, (OBJECTS, 2)))
    classes = np.stack([rng.permutation(CLASSES)[: 1 + MISTAKEN_FOR] for _ in range(OBJECTS)])
    hot, of = rng.choice(ROWS, CANDIDATE_ROWS, replace=False), rng.integers(0, OBJECTS, CANDIDATE_ROWS)
    rows[hot, :2] = centres[of] + 0.08 * sizes[of] * rng.standard_normal((CANDIDATE_ROWS, 2))
    rows[hot, 2:4] = sizes[of] * np.exp(0.12 * rng.standard_normal((CANDIDATE_ROWS, 2)))
    rows[hot, 4] = np.exp(rng.uniform(np.log(20 * CONF), 0, CANDIDATE_ROWS))
    rows[hot, 5:] = 0.9 * CONF * rng.random((CANDIDATE_ROWS, CLASSES))
    rows[hot, 5 + classes[of, 0]] = rng.uniform(0.3, 1, CANDIDATE_ROWS)
    more = rng.choice(CANDIDATE_ROWS * MISTAKEN_FOR, CANDIDATES - CANDIDATE_ROWS, replace=False)
    row, mistake = np.divmod(more, MISTAKEN_FOR)
    rows[hot[row], 5 + classes[of[row], 1 + mistake]] = rng.uniform(0.06, 0.3, len(more))
    return torch.from_numpy(rows)[None]


if __name__ == "__main__":
    main()
