"""Where the time goes: shares of a training step and of one exported inference. `python -m benchmarks.profile`

A step is profiled by PyTorch: operators count with their own time, and those of the losses (forward only) and of the
update are summed under these names. Inference is profiled by its runtime, layer by layer. Shares are of all profiled
time.
"""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from torch.autograd.profiler import record_function
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

from benchmarks.contender import Contender, Figures, Round
from benchmarks.inference import SIZES, file_of, write_files
from benchmarks.race import Result, race
from benchmarks.report import publish
from benchmarks.train_step import ROWS, THREADS, learner_of
from components import telemetry
from yolo_core.deploy.openvino import INFERENCE_PRECISION, Precision

STEPS = ("yolov7-tiny-416", "yolov4-tiny-416", "yolov4-csp-320")
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "int8")
LABELS = {"onnxruntime": "ONNX Runtime"}
CALLS = 3  # of an exported model; the last one counts
REST = "rest"
Spent = defaultdict[str, float]  # seconds by family
STEP_FAMILIES = {  # first match of an operator's name
    "convolutions": r"convolution",
    "normalisation, activation": r"NormAct|batch_norm|mish|silu|leaky",
    "copies and casts": r"copy_|cat$|CatBackward|add_$|clone",
    "pooling, upsampling": r"pool|upsample",
}
INFERENCE_FAMILIES = {
    "convolutions": r"Conv",
    "layout changes": r"Reorder|Transpose|Convert",
    "joining, splitting": r"Concat|Split|Slice|Gather",
    "activations": r"Relu|Mish|Swish|Sigmoid|Softplus|Tanh|Mul|Eltwise|Math|Add",
    "pooling, upsampling": r"Pool|Resize|Interpolate",
}
LOSSES, UPDATE = "losses forward", "update"


def main() -> None:
    steps = [
        Contender(
            f"{row}, {precision}", "benchmarks.profile:step", {"row": row, "precision": precision}, threads=THREADS
        )
        for row in STEPS
        for precision in ("fp32", "bf16")
    ]
    _publish("profile-train-step", race(steps, rounds=3))
    with TemporaryDirectory(prefix="profile-") as folder:
        write_files(Path(folder))
        runs = [
            Contender(
                f"{model}, {LABELS.get(runtime, f'OpenVINO {runtime}')}", "benchmarks.profile:inference",
                {"folder": folder, "model": model, "runtime": runtime}, threads=THREADS,
            )
            for model in SIZES
            for runtime in (*PRECISIONS, "onnxruntime")
        ]  # fmt: skip
        _publish("profile-inference", race(runs, rounds=3, warmup=0))


def _publish(row: str, results: list[Result]) -> None:
    publish(row, results, [], contender=results[0].name, threads=THREADS)


def step(row: str, precision: str) -> Round:
    """Shares of one training step of a row of `benchmarks.train_step`."""
    model, size, batch, _ = ROWS[row]
    learner, learn = learner_of(model, size, batch, "cpu", precision)
    for phase, losses in learner.losses.items():
        learner.losses[phase] = _within(LOSSES, losses)
    learner._update = _within(UPDATE, learner._update)

    def once() -> Figures:
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            learn()
        spent: Spent = defaultdict(float)
        for event in profiler.events() or []:
            spent[_region(event) or _family(event.name, STEP_FAMILIES)] += event.self_cpu_time_total / 1e6
        return _shares(spent, (*STEP_FAMILIES, LOSSES, UPDATE))

    return once


def _within(region: str, call: Callable[..., object]) -> Any:
    def recorded(*arguments: object) -> object:
        with record_function(region):
            return call(*arguments)

    return recorded


def _region(event: FunctionEvent | None) -> str | None:
    """The region in which an operator was called."""
    while event is not None:
        if event.name in (LOSSES, UPDATE):
            return event.name
        event = event.cpu_parent
    return None


def inference(folder: str, model: str, runtime: Precision | Literal["onnxruntime"]) -> Round:
    """Shares of one inference of an exported model."""
    image = torch.rand(1, 3, SIZES[model], SIZES[model])
    layers = _onnx_runtime if runtime == "onnxruntime" else partial(_openvino, precision=runtime)

    def once() -> Figures:
        spent: Spent = defaultdict(float)
        for kind, seconds in layers(Path(folder), model, image):
            spent[_family(kind, INFERENCE_FAMILIES)] += seconds
        return _shares(spent, INFERENCE_FAMILIES)

    return once


def _openvino(folder: Path, model: str, image: torch.Tensor, precision: Precision) -> Iterable[tuple[str, float]]:
    telemetry.turn_off()
    import openvino

    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": INFERENCE_PRECISION[precision],
        "INFERENCE_NUM_THREADS": THREADS,
        "PERF_COUNT": True,
    }
    request = openvino.Core().compile_model(file_of(folder, model, precision), "CPU", settings).create_infer_request()
    for _ in range(CALLS):
        request.infer([image.numpy()])
    return [(layer.node_type, layer.real_time.total_seconds()) for layer in request.get_profiling_info()]


def _onnx_runtime(folder: Path, model: str, image: torch.Tensor) -> Iterable[tuple[str, float]]:
    telemetry.turn_off()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.enable_profiling = THREADS, True
    options.profile_file_prefix = str(folder / model)
    session = onnxruntime.InferenceSession(folder / f"{model}.onnx", options)
    for _ in range(CALLS):
        session.run(None, {"images": image.numpy()})
    events = json.loads(Path(session.end_profiling()).read_text())
    nodes = [event for event in events if event["cat"] == "Node" and event["name"].endswith("_kernel_time")]
    last = nodes[-len(nodes) // CALLS :]
    return [(event["args"]["op_name"], event["dur"] / 1e6) for event in last]


def _family(name: str, families: dict[str, str]) -> str:
    return next((family for family, pattern in families.items() if re.search(pattern, name)), REST)


def _shares(spent: Spent, families: Iterable[str]) -> Figures:
    """Milliseconds in all, and the percentage of each family."""
    total = sum(spent.values())
    return {"ms": 1000 * total} | {f"{family} %": 100 * spent[family] / total for family in (*families, REST)}


if __name__ == "__main__":
    main()
