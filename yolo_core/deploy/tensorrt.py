"""TensorRT: engines from ONNX, and an engine as a predictor. Needs a CUDA device and the `tensorrt` package.

Networks are strongly typed, the only mode that both TensorRT 10 and 11 have: the engine computes in the types of the
ONNX file, so a float16 engine is built from a float16 graph (`yolo_core.deploy.onnx.export_onnx(half=True)`).
"""

import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from yolo_core.atomic import write_bytes, write_json
from yolo_core.errors import BadFile

OLDEST = 10  # major version
WORKSPACE_BYTES = 2 << 30
MAX_BATCH = 16


def why_not(device: torch.device | str) -> str | None:
    """Why engines cannot be built or run on this machine; None if they can."""
    if torch.device(device).type != "cuda":
        return "no CUDA device"
    if importlib.util.find_spec("tensorrt") is None:
        return "the tensorrt package is not installed (pip install tensorrt)"
    version = _tensorrt().__version__
    if int(version.split(".")[0]) < OLDEST:
        return f"tensorrt {version} is older than {OLDEST}"
    return None


def metadata_path(path: Path) -> Path:
    """The file beside an engine that holds its `graph.facts`: an engine itself has no place for them."""
    return path.with_suffix(".json")


def build_engine(onnx_path: Path, path: Path, facts: Mapping[str, object], max_batch: int = MAX_BATCH) -> None:
    """Build the engine of a plain graph and write it; it runs only on this GPU model and TensorRT version.

    facts: `graph.facts`; max_batch: largest batch it accepts; it is tuned for batch 1.
    Raises BadFile when TensorRT rejects the graph.
    """
    trt = _tensorrt()
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(onnx_path.read_bytes()):
        reasons = "; ".join(parser.get_error(i).desc() for i in range(parser.num_errors))
        raise BadFile(f"{onnx_path}: TensorRT cannot read it ({reasons})")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    config.clear_flag(trt.BuilderFlag.TF32)  # float32 means float32
    images = network.get_input(0)
    _, *chw = images.shape
    profile = builder.create_optimization_profile()
    profile.set_shape(images.name, (1, *chw), (1, *chw), (max_batch, *chw))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BadFile(f"{onnx_path}: TensorRT could not build an engine; see its messages above")
    write_json(metadata_path(path), facts)
    write_bytes(path, bytes(plan))


class TensorRTPredictor:
    """An engine with the interface of `yolo_core.evaluate.tta`; images and predictions are CUDA tensors."""

    def __init__(self, path: Path, device: torch.device | str = "cuda") -> None:
        trt = _tensorrt()
        self.device = torch.device(device)
        self.runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))
        with torch.cuda.device(self.device):
            self.engine = self.runtime.deserialize_cuda_engine(path.read_bytes())
            if self.engine is None:
                raise BadFile(f"{path}: not an engine for this GPU and TensorRT version")
            self.context = self.engine.create_execution_context()
        *_, self.height, self.width = self.engine.get_tensor_shape("images")

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        images = images.to(self.device, torch.float32).contiguous()
        if not self.context.set_input_shape("images", tuple(images.shape)):
            raise ValueError(f"the engine does not accept images of shape {tuple(images.shape)}")
        predictions = images.new_empty(tuple(self.context.get_tensor_shape("predictions")))
        self.context.set_tensor_address("images", images.data_ptr())
        self.context.set_tensor_address("predictions", predictions.data_ptr())
        stream = torch.cuda.current_stream(self.device)
        if not self.context.execute_async_v3(stream.cuda_stream):
            raise RuntimeError("TensorRT could not run the engine; see its messages above")
        # The caching allocator reuses this memory only after the engine's work, since both are on one stream.
        return predictions


def _tensorrt() -> ModuleType:
    return importlib.import_module("tensorrt")
