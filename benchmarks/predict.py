"""Milliseconds per photograph of the public detector, from the file to the boxes, beside the runtime alone.

One image at a time, on the CPU with two threads. The runtime alone sees a canvas that is ready, of the same size: the
difference is decoding, letterboxing, NMS and our own code, which run beside the network. Weights are random.
"""

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import typer

from benchmarks.contender import Contender, Figures, Round
from benchmarks.evaluate import PHOTOGRAPHS
from benchmarks.inference import SIZES, THREADS, detector, rounds_of
from benchmarks.race import race
from benchmarks.report import Goal, publish
from yolo_core import Detector
from yolo_core.models.weights import save_detector

IMAGES = {"yolov4-tiny": 48, "yolov4-csp": 8, "yolov7-tiny": 48}  # photographs per round
RUNTIMES = {"OpenVINO": ".xml", "PyTorch": ".safetensors"}
OURS = "predict, OpenVINO"
SHARE = 0.9  # of the speed of the runtime alone


def main(rounds: int = 3, data: Path = PHOTOGRAPHS) -> None:
    photographs = sorted((data / "images").rglob("*.jpg"))[: max(IMAGES.values())]
    if not photographs:
        raise typer.BadParameter(f"{data}: no photographs in images", param_hint="--data")
    with TemporaryDirectory(prefix="predict-") as folder:
        write_files(Path(folder))
        given = {"folder": folder, "photographs": [str(path) for path in photographs]}
        contenders = [
            *(_contender(f"predict, {kind}", "predict", suffix, **given) for kind, suffix in RUNTIMES.items()),
            *(_contender(f"{kind} alone", "alone", suffix, folder=folder) for kind, suffix in RUNTIMES.items()),
        ]
        results = race(contenders, rounds)
    goals = [Goal(name, "ms", "less", ratio=SHARE, against="OpenVINO alone") for name in SIZES]
    publish("predict", results, goals, contender=OURS, sizes=SIZES, threads=THREADS, batch=1)


def _contender(name: str, function: str, suffix: str, **options: object) -> Contender:
    return Contender(name, f"benchmarks.predict:{function}", {**options, "suffix": suffix}, threads=THREADS)


def write_files(folder: Path) -> None:
    for name, size in SIZES.items():
        weights = folder / f"{name}.safetensors"
        model = detector(name)
        save_detector(weights, model, classes=[str(number) for number in range(model.num_classes)], size=size)
        Detector.load(weights, device="cpu").export(weights.with_suffix(".xml"))


def opened(folder: str, suffix: str) -> dict[str, Detector]:
    """Square canvases everywhere: the runtime alone has no other."""
    torch.set_num_threads(THREADS)
    files = {name: Path(folder, f"{name}{suffix}") for name in SIZES}
    return {name: Detector.load(file, device="cpu", rect=False, threads=THREADS) for name, file in files.items()}


def predict(folder: str, photographs: list[str], suffix: str) -> Round:
    detectors = opened(folder, suffix)

    def once() -> Figures:
        return {name: _milliseconds(one, photographs[: IMAGES[name]]) for name, one in detectors.items()}

    return once


def alone(folder: str, suffix: str) -> Round:
    predictors = {name: one.runtime.predictor for name, one in opened(folder, suffix).items()}
    return rounds_of(predictors, torch.channels_last)


def _milliseconds(detector: Detector, photographs: list[str]) -> float:
    """Per photograph, once the first is done."""
    results = detector.stream(photographs)
    next(results)
    began = time.perf_counter()
    count = sum(1 for _ in results)
    return 1000 * (time.perf_counter() - began) / count


if __name__ == "__main__":
    typer.run(main)
