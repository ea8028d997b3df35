"""COCO scoring from a ground truth file and detections in memory to the twelve figures: seconds and memory."""

import json
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import typer

from benchmarks import peers
from benchmarks.contender import Contender, Figures, Round
from benchmarks.race import Result, race
from benchmarks.report import Goal, publish

CLASSES, TRUTHS, DETECTIONS = 80, 8, 100  # ground truths and detections per image
NAMES = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large",
         "AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large")  # fmt: skip

Score = Callable[[Path, np.ndarray], Sequence[float]]


def main(images: int = 5000, rounds: int = 3) -> None:
    """pycocotools is measured once, whatever the rounds: at 5,000 images it takes most of a minute."""
    with TemporaryDirectory() as folder:
        write_case(Path(folder), images)
        options = {"folder": folder}
        results = race(
            [
                Contender("ours (hotcoco)", "benchmarks.scoring:ours", options, threads=2),
                Contender("pycocotools", "benchmarks.scoring:pycocotools", options),
                *(
                    Contender(name, f"benchmarks.peers.scoring:{name.replace('-', '_')}", options, peers.path(), 2)
                    for name in ("hotcoco", "vernier", "faster-coco-eval")
                ),
            ],
            rounds,
        )
    goal = Goal("seconds", "s", "less", value=1)
    publish(
        "scoring",
        [Result(r.name, {k: v for k, v in r.figures.items() if k not in NAMES[1:]}, r.missing) for r in results],
        [goal],
        images=images,
        detections=images * DETECTIONS,
        truths=images * TRUTHS,
        threads=2,
        equal_to_pycocotools=", ".join(equal_to_reference(results)),
    )


def equal_to_reference(results: Sequence[Result]) -> list[str]:
    """Those whose twelve figures equal pycocotools' to the last digit. Raises SystemExit if ours do not."""
    reference = next(r.figures for r in results if r.name == "pycocotools")
    same = [r.name for r in results if r.figures and all(r.figures[name] == reference[name] for name in NAMES)]
    if results[0].name not in same:
        raise SystemExit(f"error: {results[0].name}: its figures differ from those of pycocotools")
    return same


def ours(folder: str) -> Round:
    from yolo_core.evaluate.coco_metrics import score
    from yolo_core.evaluate.detections import Detections

    def once(truth: Path, rows: np.ndarray) -> Sequence[float]:
        found = Detections(rows[:, 0].astype(int), rows[:, 6].astype(int), rows[:, 1:5], rows[:, 5])
        return [-1 if figure is None else figure for figure in score(truth, found).figures.values()]

    return timed(once, folder)


def pycocotools(folder: str) -> Round:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    return once_only(timed(lambda truth, rows: run_as_pycocotools(COCO, COCOeval, truth, rows), folder))


def run_as_pycocotools(coco: type, evaluation: type, truth: Path, rows: np.ndarray) -> Sequence[float]:
    """Scoring with pycocotools, or a package with its interface."""
    expected = coco(str(truth))
    judge = evaluation(expected, expected.loadRes(rows), "bbox")
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    return judge.stats[: len(NAMES)]


def timed(score: Score, folder: str) -> Round:
    """A round scores once. peak_mb: peak resident memory beyond what the process held before the first round."""
    rows = np.load(Path(folder) / "detections.npy")
    before = _memory("VmRSS")

    def once() -> Figures:
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        began = time.perf_counter()
        with redirect_stdout(StringIO()):  # most print their results
            figures = score(Path(folder) / "truth.json", rows)
        seconds = time.perf_counter() - began
        return {"seconds": seconds, "peak_mb": _memory("VmHWM") - before, **dict(zip(NAMES, figures, strict=True))}

    return once


def once_only(once: Round) -> Round:
    """Later rounds return the figures of the first."""
    kept: list[Figures] = []

    def first_or_kept() -> Figures:
        if not kept:
            kept.append(once())
        return kept[0]

    return first_or_kept


def _memory(what: str) -> float:
    """MB, by the kernel's name."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[what].split()[0]) / 1024


def write_case(folder: Path, images: int, seed: int = 0) -> None:
    """truth.json, with a few crowds, and detections.npy (N, 7): image id, x, y, w, h px, score, category id.

    Half the detections have the class of the ground truth they surround.
    """
    rng = np.random.default_rng(seed)
    ids, number = np.arange(1, images + 1), images * TRUTHS
    boxes = np.hstack((rng.uniform(0, 500, (number, 2)), np.exp(rng.uniform(2, 5.5, (number, 2))))).round(2)
    categories, crowds = rng.integers(1, CLASSES + 1, number), rng.random(number) < 0.02
    columns = (column.tolist() for column in (np.repeat(ids, TRUTHS), categories, boxes, crowds.astype(int)))
    annotations = [
        {"id": n, "image_id": i, "category_id": c, "bbox": box, "area": box[2] * box[3], "iscrowd": crowd}
        for n, (i, c, box, crowd) in enumerate(zip(*columns, strict=True), start=1)
    ]
    content = {
        "images": [{"id": i, "width": 640, "height": 640, "file_name": f"{i}.jpg"} for i in ids.tolist()],
        "categories": [{"id": k, "name": str(k)} for k in range(1, CLASSES + 1)],
        "annotations": annotations,
    }
    (folder / "truth.json").write_text(json.dumps(content))

    found = np.repeat(ids, DETECTIONS)
    around = (found - 1) * TRUTHS + rng.integers(0, TRUTHS, len(found))
    near = boxes[around] + 0.08 * rng.standard_normal((len(found), 4)) * boxes[around][:, [2, 3, 2, 3]]
    near[:, 2:] = np.abs(near[:, 2:]) + 1
    named = np.where(rng.random(len(found)) < 0.5, categories[around], rng.integers(1, CLASSES + 1, len(found)))
    np.save(folder / "detections.npy", np.column_stack((found, near.round(3), rng.random(len(found)).round(6), named)))


if __name__ == "__main__":
    typer.run(main)
