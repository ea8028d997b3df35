"""One step: the gradients of a batch, and the update of the weights and of their average.

Nothing here waits for the device: what a step finds out stays there until somebody looks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from yolo_core.data.loader import Batch
from yolo_core.device import autocast
from yolo_core.losses import make_loss, targets_per_image
from yolo_core.models import Detector
from yolo_core.models.detector import TrainingGraph
from yolo_core.train import distributed, optim
from yolo_core.train.allocator import keep_freed_memory
from yolo_core.train.compiling import Compiled
from yolo_core.train.ema import EMA
from yolo_core.train.schedule import Phase, Values, ema_decay

LOSSES = ("box", "obj", "cls")


@contextmanager
def reproducible(seed: int, device: torch.device) -> Iterator[None]:
    """What training asks of its process: a seed; on the CPU sums whose order does not depend on the timing of threads.

    There freed memory is kept as well, for good: see `keep_freed_memory`.
    """
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    fill = memory.fill_uninitialized_memory
    torch.manual_seed(seed)
    if device.type == "cpu":
        torch.use_deterministic_algorithms(True, warn_only=True)
        memory.fill_uninitialized_memory = False
        keep_freed_memory()
    else:
        torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        memory.fill_uninitialized_memory = fill


class Learner:
    """A model and all that a step changes: its weights, their average, the optimizer's momentum.

    phases: whose hyperparameters the losses and the optimizer are made from; size: pixels, side of the training
    square; batch, nominal_batch: images per step over all workers, and per update; dtype: of autocast, None for plain
    float32; frozen: parts of the model held in evaluation mode; compile, dynamic: see `yolo_core.train.compiling`.
    """

    def __init__(
        self,
        model: Detector,
        phases: Sequence[Phase],
        *,
        size: int,
        batch: int,
        nominal_batch: int,
        device: torch.device,
        dtype: torch.dtype | None = None,
        sync_bn: bool = False,
        frozen: Sequence[nn.Module] = (),
        compile: bool = False,
        dynamic: bool = False,
        ema_decay: float = 0.9999,
        ema_tau: float = 2000.0,
    ):
        self.device, self.dtype, self.frozen = device, dtype, frozen
        self.batch, self.nominal_batch = batch, nominal_batch
        self.ema_decay, self.ema_tau, self.updates = ema_decay, ema_tau, 0
        self.model = model.to(device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.ema = EMA(self.model)  # before the conversion, which keeps the tensors: the average has plain BatchNorm
        if sync_bn:
            distributed.synchronise_batch_norm(self.model, device)
        self.losses = {p: make_loss(self.model, p.hyp, size=size, worker_mean=distributed.mean) for p in phases}
        self.optimizer = optim.build_optimizer(self.model, phases[0].hyp, batch, nominal_batch)
        self.scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
        graph = TrainingGraph(self.model)
        self.graph = distributed.wrap(Compiled(graph, dynamic) if compile else graph, device)

    def learn(self, batch: Batch, phase: Phase, values: Values, updates: bool) -> Tensor:
        """Add the gradients of one batch and, if `updates`, change the weights by those added since the last time.

        Returns the parts of the loss and the loss, per image, (4,) on the device.
        """
        decay = phase.hyp.weight_decay * optim.decay_scale(self.batch, self.nominal_batch)
        optim.apply(self.optimizer, values, decay)
        images = _to_device(batch.images, self.device)
        targets = batch.targets.to(self.device, non_blocking=True)
        counts = targets_per_image(batch.targets, len(images))  # of the host's copy: nothing waits for the device
        self._train_mode()
        if not updates:
            with distributed.gradients_stay_local(self.graph):
                return self._backward(phase, images, targets, counts)
        losses = self._backward(phase, images, targets, counts)
        self._update()
        return losses

    def _train_mode(self) -> None:
        """Training mode, but for the frozen parts: their statistics stay as well."""
        self.graph.train()
        for part in self.frozen:
            part.eval()

    def _backward(self, phase: Phase, images: Tensor, targets: Tensor, counts: list[int]) -> Tensor:
        """The gradients; the wrapper averages over workers, the loss is a sum over images: undo that."""
        with autocast(self.device, self.dtype):
            raw_maps = self.graph(images)
        loss, parts = self.losses[phase]([raw.float() for raw in raw_maps], targets, counts)
        self.scaler.scale(loss * distributed.world()).backward()
        return torch.stack([*(parts[name].detach() for name in LOSSES), loss.detach() / len(images)])

    def _update(self) -> None:
        """One optimizer step and one step of the average."""
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.updates += 1
        self.ema.update(ema_decay(self.updates, self.ema_decay, self.ema_tau))


def _to_device(images: Tensor, device: torch.device) -> Tensor:
    """uint8 (B, 3, S, S) -> float 0..1 there; the bytes cross, not the floats."""
    images = images.to(device, non_blocking=True)
    return images.to(dtype=torch.float32, memory_format=torch.channels_last).div_(255)
