"""A predictor captured as a CUDA graph: its kernels are launched together, not one by one from Python."""

import torch
from torch import Tensor

from yolo_core.evaluate.tta import Predictor

WARMUP = 3  # calls before the capture, in which libraries choose their algorithms


class CudaGraph:
    """`predictor` with the same interface; each shape of images is captured on first use."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.recorded: dict[torch.Size, tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = {}

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        if images.shape not in self.recorded:
            self.recorded[images.shape] = self._record(images)
        graph, taken, given = self.recorded[images.shape]
        taken.copy_(images)
        graph.replay()
        return given.clone()

    def _record(self, images: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor]:
        """The graph, and the tensors it reads from and writes to."""
        taken = images.clone()
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARMUP):
                self.predictor(taken)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            given = self.predictor(taken)
        return graph, taken, given
