"""A backend timed from image file to boxes, as a service would run it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor

from components.deployment.backends import Backend
from yolo_core.data.coco import DetectionDataset
from yolo_core.data.letterbox import letterbox
from yolo_core.deploy.latency import Percentiles, percentiles, time_parts
from yolo_core.device import describe
from yolo_core.evaluate.nms import nms
from yolo_core.evaluate.predict import to_device
from yolo_core.evaluate.suppression import Suppression


class Machine(TypedDict):
    """The machine that the figures were measured on."""

    name: str
    """GPU with its memory, or CPU with its threads."""

    type: str
    """cuda or cpu."""

    threads: int
    """CPU threads of the runtimes."""

    tf32: bool
    """Whether PyTorch's convolutions use TF32."""


class TimedRow(TypedDict):
    """One backend at one batch size. Times in ms per batch."""

    backend: str
    """Name of the backend."""

    precision: str
    """fp32, fp16, bf16 or int8."""

    batch: int
    """Images per call."""

    ap: float | None
    """AP (0..1) of this backend and precision on the validation images; None where there is no ground truth."""

    preprocess_ms: Percentiles
    """Reading, decoding and letterboxing the images."""

    inference_ms: Percentiles
    """Images to decoded boxes."""

    postprocess_ms: Percentiles
    """Latency of NMS."""

    total_ms: Percentiles
    """Latency of all three parts."""

    images_per_second: float
    """Throughput over all runs, from the mean of the total."""


class BenchmarkReport(TypedDict):
    """The content of benchmark.json."""

    model: str
    """Name of the detector."""

    size: int
    """H = W of the input, px."""

    device: Machine
    """The machine it was measured on."""

    graph: dict[str, int | float]
    """The fields of `yolo_core.models.cost.Footprint`."""

    versions: dict[str, str]
    """Versions of Python and the runtimes."""

    runs: int
    """Timed runs per row."""

    conf: float
    """Lowest score that NMS looks at."""

    latency_ms_b1: float | None
    """Median total at batch 1 of the fastest backend that is as good as PyTorch; None where no AP was measured."""

    latency_backend_b1: str | None
    """The backend and precision of `latency_ms_b1`."""

    rows: list[TimedRow]
    """Every backend at every batch size."""


@dataclass(frozen=True)
class Timing:
    """Times backends on images of a dataset."""

    dataset: DetectionDataset
    """Images, taken in turn."""

    size: int
    """H = W of the input, px."""

    suppression: Suppression
    """The NMS that is timed."""

    warmup: int
    """Runs before the clock counts."""

    runs: int
    """Runs that count."""

    device: torch.device
    """Device that images are sent to."""

    def measure(self, backend: Backend, batch: int, ap: float | None) -> TimedRow:
        """The parts alone and together: p50, p90 and p99, and the overall rate. ap: of this backend."""
        spans = time_parts(
            {
                "preprocess": lambda run: self._images(range(run * batch, (run + 1) * batch)),
                "inference": lambda images: backend.predictor(images),
                "postprocess": lambda predictions: nms(predictions, self.suppression),
            },
            warmup=self.warmup,
            runs=self.runs,
            device=self.device,
        )
        return {
            "backend": backend.name,
            "precision": backend.precision,
            "batch": batch,
            "ap": ap,
            "preprocess_ms": percentiles(spans["preprocess"]),
            "inference_ms": percentiles(spans["inference"]),
            "postprocess_ms": percentiles(spans["postprocess"]),
            "total_ms": percentiles(spans["total"]),
            "images_per_second": round(batch * 1000 / float(spans["total"].mean()), 2),
        }

    def _images(self, numbers: range) -> Tensor:
        return preprocess(self.dataset, numbers, self.size, self.device)


def preprocess(dataset: DetectionDataset, numbers: range, size: int, device: torch.device) -> Tensor:
    """Decode, letterbox and stack images, taken in turn from the dataset: (B, 3, size, size) float32 on `device`."""
    canvases = [letterbox(dataset.load(number % len(dataset)), (size, size))[0] for number in numbers]
    return to_device(torch.from_numpy(np.stack(canvases)).permute(0, 3, 1, 2), device)


def machine(device: torch.device, threads: int) -> Machine:
    """This machine, as records show it."""
    return {
        "name": describe(device),
        "type": device.type,
        "threads": threads,
        "tf32": device.type == "cuda" and torch.backends.cudnn.allow_tf32,
    }


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """PyTorch on `count` CPU threads inside the context."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
