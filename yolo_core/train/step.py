"""One step: the gradients of a batch, and the update of the weights and of their average.

Nothing here waits for the device: the losses of a step stay there until the loop looks at them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
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
    """Seed this process; on the CPU also sum in an order that does not depend on the timing of threads.

    On the CPU freed memory is kept as well, and stays so after the block: see `keep_freed_memory`.
    """
    before = torch.get_deterministic_debug_mode()
    memory: Any = torch.utils.deterministic  # a module with a property
    fill = memory.fill_uninitialized_memory
    torch.manual_seed(seed)
    if device.type == "cpu":
        torch.set_deterministic_debug_mode("warn")  # use_deterministic_algorithms imports the compiler: seconds
        memory.fill_uninitialized_memory = False
        keep_freed_memory()
    else:
        torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before)
        memory.fill_uninitialized_memory = fill


@dataclass(frozen=True)
class StepConfig:
    """How a `Learner` learns."""

    phases: Sequence[Phase]
    """Whose hyperparameters the losses and the optimizer are made from."""
    size: int
    """Side of the training square in pixels."""
    batch: int
    """Images per step over all workers."""
    nominal_batch: int
    """Images per update of the weights."""
    device: torch.device
    dtype: torch.dtype | None = None
    """Dtype of autocast; None for plain float32."""
    sync_bn: bool = False
    """Whether BatchNorm takes its statistics over all workers."""
    compile: bool = False
    """Whether the model runs through torch.compile; see `yolo_core.train.compiling`."""
    dynamic: bool = False
    """Whether it is compiled for any height and width at once."""
    class_weights: Sequence[float] | None = None
    """Weights of the classes in the loss, by index; None for equal ones."""
    ema_decay: float = 0.9999
    """Decay of the average weights, per update."""
    ema_tau: float = 2000.0
    """Updates over which that decay ramps up."""


class Learner:
    """A model and all that a step changes: its weights, their average, the optimizer's momentum.

    frozen: modules of the model to be held in evaluation mode, for their statistics.
    """

    def __init__(self, model: Detector, config: StepConfig, frozen: Sequence[nn.Module] = ()):
        self.config, self.frozen, self.updates = config, frozen, 0
        self.device, self.dtype = device, dtype = config.device, config.dtype
        self.model = model.to(device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.ema = EMA(self.model)  # before the conversion, which keeps the tensors: the average has plain BatchNorm
        if config.sync_bn:
            distributed.synchronise_batch_norm(self.model, device)
        weights = None if config.class_weights is None else torch.tensor(config.class_weights, device=device)
        self.losses = {
            phase: make_loss(
                self.model, phase.hyp, size=config.size, worker_mean=distributed.mean, class_weights=weights
            )
            for phase in config.phases
        }
        first = config.phases[0].hyp
        self.optimizer = optim.build_optimizer(self.model, first, config.batch, config.nominal_batch)
        self.scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
        graph = TrainingGraph(self.model)
        self.graph = distributed.wrap(Compiled(graph, config.dynamic) if config.compile else graph, device)

    def learn(self, batch: Batch, phase: Phase, values: Values, updates: bool) -> Tensor:
        """Add the gradients of one batch and, if `updates`, update the weights by all gradients since the last update.

        Returns the parts of the loss and the loss, per image, (4,) on the device.
        """
        decay = phase.hyp.weight_decay * optim.decay_scale(self.config.batch, self.config.nominal_batch)
        optim.apply(self.optimizer, values, decay)
        images = _to_device(batch.images, self.device)
        targets = batch.targets.to(self.device, non_blocking=True)
        counts = targets_per_image(batch.targets, len(images))  # from the host's copy: nothing waits for the device
        self._train_mode()
        if not updates:
            with distributed.gradients_stay_local(self.graph):
                return self._backward(phase, images, targets, counts, values.simota)
        losses = self._backward(phase, images, targets, counts, values.simota)
        self._update()
        return losses

    def _train_mode(self) -> None:
        """Training mode, except for the frozen parts: their statistics stay as well."""
        self.graph.train()
        for part in self.frozen:
            part.eval()

    def _backward(self, phase: Phase, images: Tensor, targets: Tensor, counts: list[int], simota: bool) -> Tensor:
        """The gradients; the wrapper averages over workers, the loss is a sum over images: undo that."""
        with autocast(self.device, self.dtype):
            raw_maps = self.graph(images)
        loss, parts = self.losses[phase]([raw.float() for raw in raw_maps], targets, counts, simota)
        self.scaler.scale(loss * distributed.world()).backward()
        return torch.stack([*(parts[name].detach() for name in LOSSES), loss.detach() / len(images)])

    def _update(self) -> None:
        """One optimizer step and one step of the average."""
        self.scaler.step(self.optimizer)  # pyright: ignore[reportArgumentType] - it has what the scaler asks for
        self.scaler.update()
        self.optimizer.zero_grad()
        self.updates += 1
        self.ema.update(ema_decay(self.updates, self.config.ema_decay, self.config.ema_tau))


def _to_device(images: Tensor, device: torch.device) -> Tensor:
    """uint8 (B, 3, S, S) -> float32 in 0..1 on `device`; converted there, so that bytes travel."""
    images = images.to(device, non_blocking=True)
    return images.to(dtype=torch.float32, memory_format=torch.channels_last).div_(255)
