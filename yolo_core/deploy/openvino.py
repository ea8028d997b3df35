"""OpenVINO: the graph of `yolo_core.deploy.graph` for CPUs in float32, bfloat16 and INT8; and a file as a predictor.

A model is two files, `.xml` with the graph and `.bin` with the weights. float32 and bfloat16 share one and differ in
how it is opened; INT8 has its own, from post-training quantisation on calibration images.
Model name, classes, size, anchors and strides are in the file.
"""

import contextlib
import importlib.util
import io
import json
import logging
import sys
import warnings
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from yolo_core.atomic import replaced
from yolo_core.deploy.graph import Decoded, facts, package, planes
from yolo_core.device import has_fast_bf16
from yolo_core.errors import BadFile
from yolo_core.models.detector import Detector

if TYPE_CHECKING:
    from openvino import Core, Model

Precision = Literal["fp32", "bf16", "int8"]

EXTRA = "openvino"
FACTS = "scaled_yolov4"  # key of `graph.facts` in the file
# Precision of whatever is not quantised, which in INT8 are a few layers.
IN_FLOAT = r".*\.head\..*"  # layers that output boxes and scores: cheap, and quantising them costs AP
INFERENCE_PRECISION = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}


def why_not(precision: Precision) -> str | None:
    """Why a file cannot run in this precision on this machine; None if it can."""
    if importlib.util.find_spec("openvino") is None:
        return f"the openvino package is not installed (pip install 'scaled-yolov4[{EXTRA}]')"
    if precision == "bf16" and not has_fast_bf16(torch.device("cpu")):
        return "this CPU has no bfloat16 instructions"
    return None


def why_not_made(precision: Precision) -> str | None:
    """Why a file of this precision cannot be made on this machine; None if it can."""
    if precision == "int8" and importlib.util.find_spec("nncf") is None:
        return f"the nncf package is not installed (pip install 'scaled-yolov4[{EXTRA}]')"
    return why_not(precision)


def convert(model: Detector, path: Path, *, classes: Sequence[str], size: int) -> None:
    """Write the float32 file of a fused detector to `path` (.xml); size: H = W in px."""
    openvino = _package("openvino")
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # tracing warns that sizes become constant, which is intended
        example = torch.zeros(1, 3, size, size)
        # Traced here, because OpenVINO would run it twice more to check the trace; the stage compares predictions.
        traced = torch.jit.trace(Decoded(model).eval(), example, strict=False, check_trace=False)
        graph = openvino.convert_model(
            traced,
            example_input=example,
            input=[("images", [-1, 3, size, size])],
        )
    graph.output(0).get_tensor().set_names({"predictions"})
    graph.set_rt_info(json.dumps(facts(model, classes, size)), FACTS)
    _write(graph, path)


def quantise(source: Path, path: Path, images: Iterable[Tensor], count: int) -> None:
    """Quantise a float32 file to INT8, calibrated on the first `count` of `images`.

    images: each (1, 3, H, W) float32; iterated over more than once.
    Ranges of activations are asymmetric, as Mish, SiLU and leaky rectifiers are, and reach from the least to the
    greatest value seen: the quantiser's own choice, their means over images, cuts off the few large values by which a
    detector is sure of an object. Biases are corrected for the rounding. The head's own convolutions stay in float.
    """
    nncf = _package("nncf")
    ranges = importlib.import_module("nncf.quantization.range_estimator").RangeEstimatorParametersSet.MINMAX
    logging.getLogger("nncf").setLevel(logging.ERROR)  # its own function also changes the handlers of others
    dataset = nncf.Dataset(images, lambda image: image.contiguous().numpy())
    with contextlib.redirect_stdout(io.StringIO()):  # its progress bars cannot be turned off
        graph = nncf.quantize(
            _core().read_model(source),
            dataset,
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=count,
            ignored_scope=nncf.IgnoredScope(patterns=[IN_FLOAT]),
            advanced_parameters=nncf.AdvancedQuantizationParameters(activations_range_estimator_params=ranges),
        )
    _write(graph, path)


class OpenVINOPredictor:
    """A file with the interface of `yolo_core.evaluate.tta`. threads: CPU threads, 0 lets OpenVINO choose."""

    def __init__(self, path: Path, precision: Precision, threads: int = 0) -> None:
        core = _core()
        settings: dict[str, str | int] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": INFERENCE_PRECISION[precision],
        }
        if threads:
            settings["INFERENCE_NUM_THREADS"] = threads
        try:
            graph = core.read_model(path)
            self.metadata = json.loads(graph.get_rt_info(FACTS).value)
            self.request = core.compile_model(graph, "CPU", settings).create_infer_request()
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise BadFile(f"{path}: OpenVINO cannot open it ({reason})") from None
        self.size = int(self.metadata["size"])

    def __call__(self, images: Tensor) -> Tensor:
        found = self.request.infer([planes(images)], share_inputs=True)
        return torch.from_numpy(found["predictions"])


@cache
def _core() -> "Core":
    """One OpenVINO core per process.

    Each core installs a signal stack for the thread and restores the previous one when it is freed. Several cores freed
    in the order of their creation leave the thread with a freed stack, and its next signal kills the process.
    """
    return _package("openvino").Core()


def _write(graph: "Model", path: Path) -> None:
    """Write both files; the weights are in place first."""
    with replaced(path) as structure, replaced(path.with_suffix(".bin")) as weights:
        _package("openvino").serialize(graph, structure, weights)


def _package(name: str) -> ModuleType:
    """openvino or nncf, with their telemetry, which reports over the network, kept from being imported."""
    sys.modules.setdefault("openvino_telemetry", None)  # pyright: ignore[reportArgumentType] - None blocks the import
    return package(name, EXTRA)
