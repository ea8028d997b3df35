"""A training step, from the forward pass to the averaged weights, compared with the authors' code: speed and memory.

One optimizer step per batch, on the same weights, images and boxes. `first_loss` is the loss of the first step, per
image. `peak_mib` is the peak memory of the process. The floor is the model's convolutions alone, forward and backward,
each by itself on existing tensors.

`--only yolov4-csp-320` measures one row. On a machine with a GPU the same rows are measured there, in more precisions.
"""

import resource
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated

import torch
import torch.distributed as dist
import typer
from torch import Tensor, nn

from benchmarks import peers
from benchmarks.contender import Contender, Figures, Round
from benchmarks.race import Result, race
from benchmarks.report import Goal, publish
from yolo_core.data.loader import Batch
from yolo_core.models import Detector, build_model
from yolo_core.train.schedule import Phase, Values
from yolo_core.train.step import Learner, StepConfig, reproducible

# name: model, size, batch and steps of a round.
ROWS = {
    "yolov4-csp-320": ("yolov4-csp", 320, 4, 1),
    "yolov4-csp-640": ("yolov4-csp", 640, 2, 1),
    "yolov7-416": ("yolov7", 416, 4, 1),
    "yolov7-tiny-416": ("yolov7-tiny", 416, 4, 4),
    "yolov4-tiny-416": ("yolov4-tiny", 416, 4, 4),
}
GPU_BATCH = 32
CLASSES, BOXES = 80, 7  # COCO's classes, and about its boxes per image
LOSS_TOLERANCE = 1e-4  # of float32, relative to the original's
RATIOS = {"float32": 1.5, "bf16": 2.4}
THREADS = 2

PRECISIONS = {
    "cpu": {"float32": {"precision": "fp32"}, "bf16": {"precision": "bf16"}},
    "cuda": {
        "float32": {"precision": "fp32"},
        "tf32": {"precision": "fp32", "tf32": True},
        "bf16": {"precision": "bf16"},
        "bf16, compiled": {"precision": "bf16", "compile": True},
        "bf16, DDP of one": {"precision": "bf16", "parallel": True},
    },
}


def main(
    only: Annotated[str | None, typer.Option(help=f"one of {', '.join(ROWS)}")] = None,
    rounds: int = 2,
    floor: Annotated[bool, typer.Option(help="also measure the convolutions alone")] = True,
) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for name in ROWS if only is None else [only]:
        model, size, batch, steps = ROWS[name]
        batch = batch if device == "cpu" else GPU_BATCH
        work = {"model": model, "size": size, "batch": batch, "steps": steps, "device": device}
        ours = [
            Contender(precision, "benchmarks.train_step:ours", {**work, **options}, threads=THREADS)
            for precision, options in PRECISIONS[device].items()
        ]
        family = "yolov7" if model.startswith("yolov7") else "scaled_yolov4"
        checkout = {"yolov7": "yolov7", "scaled_yolov4": "yolov4-csp"}[family]
        original = Contender(
            "original",
            f"benchmarks.peers.train_step:{family}",
            work,
            path=peers.path(checkout),
            threads=THREADS,
        )
        floors = [
            Contender(f"floor {c.name}", "benchmarks.train_step:convolutions", c.options, threads=THREADS)
            for c in ours[:2]
            if floor and device == "cpu"
        ]
        _publish(name, work, race([*ours, original, *floors], rounds), [c.name for c in ours])


def _publish(name: str, work: dict, results: Sequence[Result], ours: Sequence[str]) -> None:
    """One row per precision on a CPU; on a GPU one row with all of them."""
    by_name = {result.name: result for result in results}
    facts = {**work, "threads": THREADS}
    original = by_name["original"]
    if work["device"] == "cuda":
        fastest = by_name["bf16, compiled"]
        rest = [result for result in results if result is not fastest]
        publish(f"train-step-{name}-cuda", [fastest, *rest], [], **facts)
        return
    for precision in ours:
        result = by_name[precision]
        goals = [
            Goal("images_per_s", "images/s", "more", ratio=RATIOS[precision]),
            Goal("peak_mib", "MiB", "less", ratio=1.0),
        ]
        extra = {}
        if precision == "float32" and original.figures:
            ratio = result.figures["first_loss"] / original.figures["first_loss"]
            extra["first_loss_difference"] = abs(ratio - 1)
            if abs(ratio - 1) > LOSS_TOLERANCE:
                raise SystemExit(f"{name}: the first loss differs from the original's by {abs(ratio - 1):.1e}")
        if f"floor {precision}" in by_name:
            extra["floor"] = by_name[f"floor {precision}"].figures
        publish(f"train-step-{name}-{precision}", [replace(result, name="ours"), original], goals, **facts, **extra)


def ours(
    model: str,
    size: int,
    batch: int,
    steps: int,
    device: str,
    precision: str,
    tf32: bool = False,
    compile: bool = False,
    parallel: bool = False,
) -> Round:
    """The contender: the learner that `fit` trains with."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    if parallel:
        dist.init_process_group("nccl", init_method="tcp://127.0.0.1:29611", world_size=1, rank=0)
    learner, learn = learner_of(model, size, batch, device, precision, compile)
    if parallel:
        learner.graph = nn.parallel.DistributedDataParallel(learner.graph, gradient_as_bucket_view=True)
    return stepping(learn, batch, steps, device)


def learner_of(
    model: str, size: int, batch: int, device: str, precision: str, compile: bool = False
) -> tuple[Learner, Callable[[], Tensor]]:
    """A learner, and one step of it on a batch of noise."""
    chosen = torch.device(device)
    setting = reproducible(0, chosen)
    setting.__enter__()  # for the rest of this process
    network = model_of(model)
    phase = Phase(1, network.spec.hyp)
    dtype = {"fp32": None, "bf16": torch.bfloat16}[precision]
    learner = Learner(network, StepConfig((phase,), size, batch, batch, chosen, dtype, compile=compile))
    values = Values(phase.hyp.lr0, phase.hyp.lr0, phase.hyp.momentum, 1)
    images, targets = batch_of(size, batch)
    data = Batch(images.pin_memory(), targets.pin_memory()) if device == "cuda" else Batch(images, targets)
    return learner, lambda: learner.learn(data, phase, values, updates=True)


def stepping(step: Callable[[], Tensor | float], batch: int, steps: int, device: str) -> Round:
    """A round of some steps; the very first step is made here, for its loss.

    step: makes one step and returns its loss per image, or losses with that one last.
    """
    first = step()
    first = first[-1].item() if isinstance(first, Tensor) else first

    def once() -> Figures:
        began = time.perf_counter()
        for _ in range(steps):
            step()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds = (time.perf_counter() - began) / steps
        return {"images_per_s": batch / seconds, "step_s": seconds, "peak_mib": _peak(device), "first_loss": first}

    return once


def _peak(device: str) -> float:
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def model_of(name: str) -> Detector:
    """The same weights in every process."""
    torch.manual_seed(0)
    return build_model(name, CLASSES)


def batch_of(size: int, batch: int) -> Batch:
    """Images of noise and boxes of all sizes, the same in every process."""
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (batch, 3, size, size), generator=random, dtype=torch.uint8)
    targets = torch.rand(batch * BOXES, 6, generator=random)
    targets[:, 0] = torch.arange(len(targets)) // BOXES
    targets[:, 1] = (targets[:, 1] * CLASSES).floor()
    targets[:, 4:] = 0.02 + 0.5 * targets[:, 4:] ** 2
    targets[:, 2:] *= size
    return Batch(images, targets)


def convolutions(model: str, size: int, batch: int, steps: int, device: str, precision: str) -> Round:
    """The floor: each convolution of the model by itself, forward and backward."""
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    shapes: Counter[tuple] = Counter()

    def note(conv: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(conv, nn.Conv2d)
        shapes[(inputs[0].shape, conv.weight.shape, conv.stride, conv.padding)] += 1

    with torch.device("meta"):
        network = build_model(model, CLASSES)
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(note)
        network.training_maps(torch.empty(batch, 3, size, size))

    def once() -> Figures:
        seconds = sum(count * _convolution(shape, dtype) for shape, count in shapes.items())
        return {"images_per_s": batch / seconds, "step_s": seconds}

    return once


def _convolution(of: tuple, dtype: torch.dtype) -> float:
    """Seconds of one convolution, forward and backward; the image needs no gradient."""
    shape, kernel, stride, padding = of
    tensor = partial(torch.randn, dtype=dtype)
    x, weight = (tensor(size).to(memory_format=torch.channels_last) for size in (shape, kernel))
    forward = partial(torch.ops.aten.convolution, x, weight, None, stride, padding, (1, 1), False, (0, 0), 1)
    gradient = torch.ones_like(forward())
    wanted = [shape[1] != 3, True, False]
    backward = partial(torch.ops.aten.convolution_backward, gradient, x, weight, None)
    began = time.perf_counter()
    forward()
    backward(stride, padding, (1, 1), False, (0, 0), 1, wanted)
    return time.perf_counter() - began


if __name__ == "__main__":
    typer.run(main)
