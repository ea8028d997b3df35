"""A training step: the losses from before its optimisation, its synchronisation with the device, compiling."""

import json
import logging
from pathlib import Path

import pytest
import torch
from torch import nn

from yolo_core.data.loader import Batch
from yolo_core.models import build_model, get_spec
from yolo_core.train.schedule import Phase, Values
from yolo_core.train.step import Learner, StepConfig, reproducible

CURVES = json.loads((Path(__file__).parents[2] / "golden/training-curves.json").read_text())
CPU = torch.device("cpu")
# SimOTA's choice depends on the last bits of the predictions: one box more or less is assigned.
WITHIN = {"yolov4-tiny": 2e-3, "yolov4-csp": 2e-3, "yolov7-tiny": 5e-3}


def batch_of(step: int, size: int) -> Batch:
    """Four images of noise, three boxes in each."""
    random = torch.Generator().manual_seed(1000 + step)
    images = torch.randint(0, 256, (4, 3, size, size), generator=random, dtype=torch.uint8)
    targets = torch.rand(12, 6, generator=random)
    targets[:, 0] = torch.arange(12) % 4
    targets[:, 1] = torch.randint(0, 3, (12,), generator=random)
    targets[:, 2:4] = size * targets[:, 2:4]
    targets[:, 4:] = size * (0.05 + 0.45 * targets[:, 4:])
    return Batch(images, targets)


def learner_of(name: str, width: float, size: int, lr0: float = 1e-3, device: torch.device = CPU, **options) -> Learner:
    """A learner of three classes, with one phase without warm-up; anchors scaled to the size."""
    spec = get_spec(name)
    factor = size / spec.native_size
    anchors = tuple(tuple((w * factor, h * factor) for w, h in level) for level in spec.anchors)
    phase = Phase(1, spec.hyp.replace(warmup_epochs=0, warmup_iterations=0, lr0=lr0))
    model = build_model(name, 3, width, anchors=anchors)
    return Learner(model, StepConfig((phase,), size, 4, 8, device, ema_decay=0.9999, ema_tau=10, **options))


def learn(learner: Learner, steps: int, size: int, lr0: float = 1e-3) -> list[list[float]]:
    """The losses of some steps; every second one updates the weights."""
    (phase,) = learner.losses
    values = Values(lr0, lr0, phase.hyp.momentum, 2)
    return [learner.learn(batch_of(step, size), phase, values, step % 2 == 1).tolist() for step in range(steps)]


def distance(model: nn.Module, start: dict[str, torch.Tensor]) -> float:
    moved = (parameter.detach().double() - start[name].double() for name, parameter in model.named_parameters())
    return sum(change.square().sum().item() for change in moved) ** 0.5


@pytest.mark.parametrize("name", CURVES)
def test_the_loss_curve_is_unchanged(name: str) -> None:
    golden = CURVES[name]
    with reproducible(0, CPU):
        learner = learner_of(name, golden["width"], golden["size"], golden["lr0"])
        start = {key: value.detach().clone() for key, value in learner.model.named_parameters()}
        losses = learn(learner, len(golden["losses"]), golden["size"], golden["lr0"])
    for step, (ours, theirs) in enumerate(zip(losses, golden["losses"], strict=True)):
        assert ours == pytest.approx(theirs, rel=1e-3), f"step {step}"
    assert distance(learner.model, start) == pytest.approx(golden["moved"], rel=WITHIN[name])
    assert distance(learner.ema.module, start) == pytest.approx(golden["average_moved"], rel=WITHIN[name])


@pytest.mark.parametrize("name", ["yolov4-csp", "yolov7-tiny", "yolov7-w6"])  # one of each loss
def test_nothing_in_a_step_reads_the_values_of_a_tensor(name: str) -> None:
    """On the meta device tensors have no values: reading one, or counting those that are not zero, fails."""
    learner = learner_of(name, 0.125, 128, device=torch.device("meta"))
    (phase,) = learner.losses
    losses = learner.learn(batch_of(0, 128), phase, Values(0.01, 0.01, 0.9, 2), updates=False)
    assert losses.shape == (4,)
    assert all(parameter.grad is not None for parameter in learner.model.parameters())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [None, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["yolov4-csp", "yolov7-tiny", "yolov7-w6"])
def test_nothing_in_a_step_waits_for_the_gpu(name: str, dtype: torch.dtype | None) -> None:
    learner = learner_of(name, 0.125, 128, device=torch.device("cuda"), dtype=dtype)
    (phase,) = learner.losses
    for step in range(4):  # the first two allocate what is kept from then on
        torch.cuda.set_sync_debug_mode("error" if step >= 2 else "default")
        try:
            learner.learn(batch_of(step, 128), phase, Values(0.01, 0.01, 0.9, 2), step % 2 == 1)
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.slow
def test_without_a_compiler_the_step_continues_after_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    for variable in ("CXX", "CC"):
        monkeypatch.delenv(variable, raising=False)
    curves = []
    for compile in (False, True):
        with reproducible(0, CPU), caplog.at_level(logging.WARNING, "yolo_core"):
            curves.append(learn(learner_of("yolov4-tiny", 0.125, 64, compile=compile), 3, 64))
    assert curves[0] == curves[1]
    assert [record.getMessage().partition(",")[0] for record in caplog.records] == ["torch.compile failed"]
    assert "\n" not in caplog.records[0].getMessage()


@pytest.mark.slow
def test_compiled_steps_give_the_same_losses() -> None:
    curves = []
    for compile in (False, True):
        with reproducible(0, CPU):
            learner = learner_of("yolov4-tiny", 0.125, 64, compile=compile)
            curves.append(learn(learner, 3, 64))
    for ours, theirs in zip(*curves, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)
