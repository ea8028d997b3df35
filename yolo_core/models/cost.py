"""What a model costs: parameters, operations, traffic and memory, counted from its graph without running it."""

import copy
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from yolo_core.models.detector import Detector, TrainingGraph
from yolo_core.models.fuse import fold_blocks

M = TypeVar("M", bound=nn.Module)

ELEMENTWISE = (nn.BatchNorm2d, nn.LeakyReLU, nn.Mish, nn.SiLU)


@dataclass(frozen=True)
class Cost:
    """params: trainable numbers; gflops: 1e9 operations of one image's convolutions, a multiply-add counted as two."""

    params: int
    gflops: float


def cost(model: nn.Module, size: int) -> Cost:
    """The cost of `model`'s forward as it is, at a square input of `size` pixels; biases are not counted as operations.

    Allocates nothing; the model may be on any device.
    """
    counted = _count(model, size)
    return Cost(counted.params, 2 * counted.multiply_adds / 1e9)


def deploy_cost(model: Detector, size: int) -> Cost:
    """The cost of the graph that inference runs: folded, without auxiliary heads, as `fuse` leaves it.

    Adding a bias counts as a multiply-add, as in the sizes of the YOLOv7 paper. Allocates nothing.
    """
    counted = _count(_deploy_graph(model), size)
    return Cost(counted.params, counted.deploy_gflops)


def paper_cost(model: Detector, size: int) -> Cost:
    """The cost of the graph that the model's paper counts: as built for Scaled-YOLOv4, as deployed for YOLOv7.

    The auxiliary heads, which the paper counts for yolov7-d6 only, are left out.
    """
    return deploy_cost(model, size) if model.spec.published.graph == "deployed" else cost(model, size)


@dataclass(frozen=True)
class Footprint:
    """What inference of one image takes: figures of the deploy graph (see `deploy_cost`) at a square input of `size`.

    params, gflops: as `deploy_cost` counts them. convolutions: how many run, one after the other.
    io: elements of the maps that the convolutions read and write (convolutional input/output, arXiv 2011.08036,
        section 3), weights aside.
    weight_bytes: parameters and buffers. peak_bytes: the most that the input, the maps and the outputs take at one
        time when the operations run in turn and every map is freed after its last use, as PyTorch does. Both in
        float32; half precision takes half.
    """

    size: int
    params: int
    gflops: float
    convolutions: int
    io: int
    weight_bytes: int
    peak_bytes: int

    def at(self, size: int) -> "Footprint":
        """The footprint at another square input, exact for multiples of the largest stride: maps grow by its area."""
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
    """Activation memory of training: bytes per image that the forward pass keeps for the backward pass, in float32.

    The distinct storages that autograd saves, weights aside, of the training graph at a square input of `size` pixels;
    it grows with the area. Autocast to half precision keeps about half of it, activation checkpointing much less.
    Allocates nothing.
    """
    graph = without_memory(model).train()
    graph.body.checkpointing = False
    own = _storages((*graph.parameters(), *graph.buffers()))
    kept: dict[int, torch.UntypedStorage] = {}  # holds them, so that ids stay unique

    def keep(tensor: Tensor) -> Tensor:
        if tensor.shape[:1] == (2,):  # of both images; statistics of the batch are negligible
            kept.update(_storages((tensor,)))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        TrainingGraph(graph)(torch.empty(2, 3, size, size, device="meta"))
    return sum(storage.nbytes() for key, storage in kept.items() if key not in own) // 2


def without_memory(model: M) -> M:
    """A copy on the meta device: the same graph and shapes, no numbers."""
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
    """Parameters; of the convolutions of one image: multiply-adds, additions of biases, number, elements in and out."""

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
        if isinstance(module, ELEMENTWISE):  # they do not change shapes and take most of the time
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
    """Follows the storages made inside it, other than those of `own`: the bytes alive now and at most."""

    def __init__(self, own: Iterable[Tensor]) -> None:
        super().__init__()
        self.own = _storages(own)
        self.now = self.peak = 0
        self.known: dict[int, weakref.ref] = {}

    def __torch_dispatch__(self, func: Callable, types: Any, args: Sequence = (), kwargs: dict | None = None) -> Any:
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
