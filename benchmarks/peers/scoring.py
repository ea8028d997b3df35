"""Other COCO scorers, each used in its fastest way from a ground truth file and an array of detections."""

import importlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.contender import Round
from benchmarks.scoring import run_as_pycocotools, timed


def hotcoco(folder: str) -> Round:
    package = importlib.import_module("hotcoco")

    return timed(lambda truth, rows: run_as_pycocotools(package.COCO, package.COCOeval, truth, rows), folder)


def faster_coco_eval(folder: str) -> Round:
    package = importlib.import_module("faster_coco_eval")

    return timed(lambda truth, rows: run_as_pycocotools(package.COCO, package.COCOeval_faster, truth, rows), folder)


def vernier(folder: str) -> Round:
    instance = importlib.import_module("vernier.instance")
    evaluator = instance.Evaluator(iou=instance.Bbox(), parity_mode="strict")

    def score(truth: Path, rows: np.ndarray) -> Sequence[float]:
        return evaluator.evaluate(truth.read_bytes(), np.ascontiguousarray(rows)).stats

    return timed(score, folder)
