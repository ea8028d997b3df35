"""ONNX: export of a detector with decoding, and optionally NMS, in the graph; and ONNX Runtime as a predictor.

The plain graph is that of `yolo_core.deploy.graph`. The one with NMS gives `detections` (n, 7) instead: image index,
x1, y1, x2, y2 px, score, class index; n is free, rows are ordered by image, then class, then falling score. Of each
image it keeps the best `max_detections` over all classes.
Model name, classes, size, anchors and strides are in the file's metadata.
"""

import json
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from yolo_core.atomic import replaced
from yolo_core.deploy.graph import Decoded, Facts, facts, package, planes
from yolo_core.errors import BadArgument, BadFile
from yolo_core.models.detector import Detector

if TYPE_CHECKING:
    import onnx
    from onnxruntime import InferenceSession

NEWEST_OPSET = 20  # of PyTorch's TorchScript exporter, which needs no package beside torch


def export_onnx(
    model: Detector, path: Path, *, classes: Sequence[str], size: int, opset: int, half: bool = False
) -> None:
    """Write the plain graph of a fused detector.

    size: H = W in px, a multiple of the largest stride; half: float16 weights and arithmetic (`model` must be half).
    The file passes `onnx.checker`.
    Raises BadArgument for an opset that the exporter does not know, UserError for a missing package.
    """
    onnx = package("onnx", "export")
    if opset > NEWEST_OPSET:
        raise BadArgument("opset", f"= {opset}: PyTorch's exporter writes opsets up to {NEWEST_OPSET}")
    device = next(model.parameters()).device
    with replaced(path) as temporary:
        with warnings.catch_warnings(), torch.no_grad(), _mish_of_quick_operators(opset):
            # The exporter is deprecated, and tracing makes sizes constant: both are intended.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                Decoded(model, half).eval(),
                (torch.zeros(1, 3, size, size, device=device),),
                str(temporary),
                dynamo=False,
                opset_version=opset,
                input_names=["images"],
                output_names=["predictions"],
                dynamic_axes={"images": {0: "batch"}, "predictions": {0: "batch"}},
            )
        graph = onnx.load(str(temporary))
        _name_output_shape(graph, model, size)
        _describe(graph, model, classes, size)
        write_checked(graph, temporary)


class OnnxPredictor:
    """ONNX Runtime over a plain graph, with the interface of `yolo_core.evaluate.tta`.

    threads: CPU threads, 0 lets the runtime choose. The file takes canvases of `size` x `size`.
    """

    def __init__(self, path: Path, device: torch.device | str = "cpu", threads: int = 0) -> None:
        self.session = open_session(path, device, threads)
        self.device = torch.device(device)
        self.metadata = read_metadata(self.session)
        self.size = int(self.metadata["size"])
        self.provider = self.session.get_providers()[0]

    def __call__(self, images: Tensor) -> Tensor:
        if self.provider == "CUDAExecutionProvider":
            return self._on_cuda(images.to(self.device, torch.float32).contiguous())
        found = self.session.run(["predictions"], {"images": planes(images)})
        return torch.from_numpy(found[0])

    def _on_cuda(self, images: Tensor) -> Tensor:
        """Run on device tensors, without copies through the host."""
        _, *values = self.session.get_outputs()[0].shape
        predictions = images.new_empty((len(images), *values))
        binding, place = self.session.io_binding(), ("cuda", images.device.index or 0, np.float32)
        binding.bind_input("images", *place, tuple(images.shape), images.data_ptr())
        binding.bind_output("predictions", *place, tuple(predictions.shape), predictions.data_ptr())
        torch.cuda.current_stream(self.device).synchronize()  # the runtime has its own stream
        self.session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return predictions


def run_nms(session: "InferenceSession", images: Tensor) -> list[Tensor]:
    """Detections of a graph with NMS as `yolo_core.evaluate.nms` gives them: per image (n, 6), highest score first."""
    rows = torch.from_numpy(session.run(["detections"], {"images": images.float().contiguous().cpu().numpy()})[0])
    found = [rows[rows[:, 0] == i, 1:] for i in range(len(images))]
    return [one[one[:, 4].argsort(descending=True, stable=True)] for one in found]


def open_session(path: Path, device: torch.device | str = "cpu", threads: int = 0) -> "InferenceSession":
    """An ONNX Runtime session on the CPU, or on CUDA if the device is CUDA and the runtime supports it."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # at import it would look up a host and write to the home
    runtime = package("onnxruntime", "export")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    providers: list[str | tuple[str, dict[str, int]]] = ["CPUExecutionProvider"]
    place = torch.device(device)
    if place.type == "cuda" and "CUDAExecutionProvider" in runtime.get_available_providers():
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": place.index or 0}))
    try:
        return runtime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # the runtime raises private types
        raise BadFile(f"{path}: ONNX Runtime cannot open it ({error})") from None


def read_metadata(session: "InferenceSession") -> Facts:
    """The metadata that `export_onnx` wrote."""
    return Facts(**{key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()})


@contextmanager
def _mish_of_quick_operators(opset: int) -> Iterator[None]:
    """Have Mish written as x t / (2 - t) with t = s (2 - s), s = sigmoid(x): tanh(softplus(x)) without softplus.

    ONNX Runtime computes softplus one number at a time, and the operator Mish through it. This form takes half the
    time, is as exact, and cannot overflow.
    """

    def write(graph: Any, x: Any) -> Any:
        two = graph.op("Constant", value_t=torch.tensor(2, dtype=x.type().dtype()))
        s = graph.op("Sigmoid", x)
        t = graph.op("Mul", s, graph.op("Sub", two, s))
        return graph.op("Mul", x, graph.op("Div", t, graph.op("Sub", two, t)))

    torch.onnx.register_custom_op_symbolic("aten::mish", write, opset)  # pyright: ignore[reportPrivateImportUsage]
    try:
        yield
    finally:
        torch.onnx.unregister_custom_op_symbolic("aten::mish", opset)  # pyright: ignore[reportPrivateImportUsage]


def _describe(graph: "onnx.ModelProto", model: Detector, classes: Sequence[str], size: int) -> None:
    for key, value in facts(model, classes, size).items():
        graph.metadata_props.add(key=key, value=json.dumps(value))


def _name_output_shape(graph: "onnx.ModelProto", model: Detector, size: int) -> None:
    """Only the batch is dynamic: name it so, where the exporter leaves its own names."""
    rows = sum(model.anchors.shape[1] * (size // stride) ** 2 for stride in model.strides)
    _, n, values = graph.graph.output[0].type.tensor_type.shape.dim
    n.dim_value, values.dim_value = rows, 5 + model.num_classes


def write_checked(graph: "onnx.ModelProto", path: Path) -> None:
    """Write a graph that passes `onnx.checker`."""
    onnx = package("onnx", "export")
    onnx.checker.check_model(graph, full_check=True)
    onnx.save(graph, str(path))
