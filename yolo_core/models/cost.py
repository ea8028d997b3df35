"""The cost of a model: parameters, operations, memory traffic and memory, counted on its graph without running it."""

import copy
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from yolo_core.models.detector import Detector, TrainingGraph
from yolo_core.models.fuse import fold_blocks

M = TypeVar("M", bound=nn.Module)

ELEMENTWISE = (nn.BatchNorm2d, nn.LeakyReLU, nn.Mish, nn.SiLU)


@dataclass(frozen=True)
class Cost:
    """params: trainable parameters; gflops: 1e9 operations in the convolutions per image, a multiply-add being two."""

    params: int
    gflops: float


def cost(model: nn.Module, size: int) -> Cost:
    """The cost of `model.forward` as it stands, at a square input of `size` pixels, ignoring bias additions.

    Allocates nothing; the model may be on any device.
    """
    counted = _count(model, size)
    return Cost(counted.params, 2 * counted.multiply_adds / 1e9)


def deploy_cost(model: Detector, size: int) -> Cost:
    """The cost of the inference graph that `fuse` produces: folded, without auxiliary heads.

    Adding a bias counts as a multiply-add, as in the YOLOv7 paper. Allocates nothing.
    """
    counted = _count(_deploy_graph(model), size)
    return Cost(counted.params, counted.deploy_gflops)


def paper_cost(model: Detector, size: int) -> Cost:
    """The cost of the graph that the model's paper counts: as built for Scaled-YOLOv4, as deployed for YOLOv7.

    Excludes auxiliary heads, which the paper counts only for yolov7-d6.
    """
    return deploy_cost(model, size) if model.spec.published.graph == "deployed" else cost(model, size)


@dataclass(frozen=True)
class Footprint:
    """The cost of inference per image: the deployed graph (see `deploy_cost`) at a square input of `size` pixels.

    params, gflops: as in `deploy_cost`. convolutions: number run, one after the other.
    io: feature map elements that the convolutions read and write, without weights (convolutional input/output,
        arXiv 2011.08036, section 3).
    weight_bytes: parameters and buffers. peak_bytes: peak memory of input, feature maps and outputs when operations
        run one by one and each map is freed after its last use, as in PyTorch. Both in float32; half that in half
        precision.
    """

    size: int
    params: int
    gflops: float
    convolutions: int
    io: int
    weight_bytes: int
    peak_bytes: int

    def at(self, size: int) -> "Footprint":
        """The footprint at another square input, scaled by area: exact for multiples of the largest stride."""
        area = Fraction(size, self.size) ** 2
        scaled = {name: round(getattr(self, name) * area) for name in ("io", "peak_bytes")}
        return replace(self, size=size, gflops=float(self.gflops * area), **scaled)


@torch.no_grad()
def footprint(model: Detector, size: int) -> Footprint:
    """The footprint of `model` at a square input of `size` pixels. Allocates nothing."""
    graph = _deploy_graph(model).eval()
    own = (*graph.parameters(), *graph.buffers())
    with _counting(graph) as counted, _Alive(own) as alive:
        graph(torch.empty(1, 3, size, size, device="meta"))
    return Footprint(
        size=size,
        params=counted.params,
        gflops=counted.deploy_gflops,
        convolutions=counted.convolutions,
        io=counted.io,
        weight_bytes=sum(tensor.nbytes for tensor in own),
        peak_bytes=alive.peak,
    )


def kept_bytes(model: Detector, size: int) -> int:
    """Activation memory of training: bytes per image stored for the backward pass, in float32.

    Sums the distinct storages that autograd saves, without weights, for the training graph at a square input of `size`
    pixels; grows with the area. Half-precision autocast stores about half of it, activation checkpointing much less.
    Allocates nothing.
    """
    graph = without_memory(model).train()
    graph.body.checkpointing = False
    own = _storages((*graph.parameters(), *graph.buffers()))
    kept: dict[int, torch.UntypedStorage] = {}  # keeps them alive, so that ids stay unique

    def keep(tensor: Tensor) -> Tensor:
        if tensor.shape[:1] == (2,):  # per image, in a batch of two; batch statistics are negligible
            kept.update(_storages((tensor,)))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        TrainingGraph(graph)(torch.empty(2, 3, size, size, device="meta"))
    return sum(storage.nbytes() for key, storage in kept.items() if key not in own) // 2


def without_memory(model: M) -> M:
    """A copy on the meta device: same graph and shapes, no data."""
    memo: dict[int, object] = {id(p): nn.Parameter(_shape_of(p)) for p in model.parameters()}
    memo |= {id(b): _shape_of(b) for b in model.buffers()}
    return copy.deepcopy(model, memo)


def _shape_of(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")


def _deploy_graph(model: Detector) -> Detector:
    graph = without_memory(model)
    graph.drop_auxiliary()
    fold_blocks(graph)
    return graph


@dataclass
class _Counted:
    """Parameters and, for the convolutions per image, multiply-adds, bias additions, count, elements in and out."""

    params: int
    multiply_adds: int = 0
    bias_adds: int = 0
    convolutions: int = 0
    io: int = 0

    @property
    def deploy_gflops(self) -> float:
        return 2 * (self.multiply_adds + self.bias_adds) / 1e9


@torch.no_grad()
def _count(model: nn.Module, size: int) -> _Counted:
    graph = without_memory(model)
    for module in graph.modules():
        if isinstance(module, ELEMENTWISE):  # keep shapes and take most of the time
            module.forward = _same
    with _counting(graph) as counted:
        graph(torch.empty(1, 3, size, size, device="meta"))
    return counted


def _same(input: Tensor) -> Tensor:
    return input


@contextmanager
def _counting(model: nn.Module) -> Iterator[_Counted]:
    """Count the convolutions that `model` runs inside the context."""
    counted = _Counted(sum(p.numel() for p in model.parameters()))

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        read, written = inputs[0].numel() // len(output), output.numel() // len(output)
        counted.multiply_adds += written * (module.weight.numel() // len(module.weight))
        counted.bias_adds += written if module.bias is not None else 0
        counted.convolutions += 1
        counted.io += read + written

    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, nn.Conv2d)]
    try:
        yield counted
    finally:
        for hook in hooks:
            hook.remove()


class _Alive(TorchDispatchMode):
    """Tracks storages created inside the context, except those of `own`: current and peak bytes."""

    def __init__(self, own: Iterable[Tensor]) -> None:
        super().__init__()
        self.own = _storages(own)
        self.now = self.peak = 0
        self.known: dict[int, weakref.ref] = {}

    def __torch_dispatch__(
        self, func: Callable, types: Sequence[type], args: Sequence = (), kwargs: dict | None = None
    ) -> object:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, Tensor):
                self._see(tensor.untyped_storage())
        return result

    def _see(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        if key in self.known or key in self.own:
            return

        def gone(_: weakref.ref) -> None:
            self.now -= size
            del self.known[key]

        self.known[key] = weakref.ref(storage, gone)
        self.now += size
        self.peak = max(self.peak, self.now)


def _storages(tensors: Iterable[Tensor]) -> dict[int, torch.UntypedStorage]:
    return {id(storage): storage for storage in (tensor.untyped_storage() for tensor in tensors)}
