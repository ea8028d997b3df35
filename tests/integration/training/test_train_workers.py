"""Several workers train the detector that one trains, on a few small pictures of digits."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from processes import START_METHOD
from small_training import MODEL, config, fitted, run

from components.monitoring.training_log import on_stdout
from yolo_core.errors import UserError
from yolo_core.evaluate.detections import Detections
from yolo_core.hyperparameters import Hyperparameters
from yolo_core.models import build_model
from yolo_core.models.detector import TrainingGraph
from yolo_core.train import Evaluation, Phase, distributed, validation
from yolo_core.train import run as training_run
from yolo_core.train import step as training_step

WORKERS = 2
TOGETHER = {
    "precision": "fp32",
    "eval_every": 1,
    "evaluation": Evaluation(batch=1),  # a batch for each of four workers
    "sync_bn": True,
    "phases": (Phase(5, Hyperparameters(warmup_epochs=1)),),
}
WITH_AUXILIARY_HEADS = TOGETHER | {
    "model": "yolov7-w6",
    "size": 128,
    "width": 0.125,
    "phases": (Phase(1, Hyperparameters(warmup_iterations=0)),),
}


def in_double(*arguments: Any) -> torch.nn.Module:
    """A model that computes in float64. In float32 LeakyReLU makes another gradient of a value that differs in its
    last bit and lies at 0, which hides whether two computations are the same."""
    model = build_model(*arguments).double()
    model.register_forward_pre_hook(lambda _, inputs: (inputs[0].double(),))
    return model


class InDouble(TrainingGraph):
    """The training graph of such a model."""

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        return super().forward(images.double())


def compute_in_double(patch: pytest.MonkeyPatch) -> list[Detections]:
    """Gives what is scored at each evaluation, as they come."""
    patch.setattr(training_run, "build_model", in_double)
    patch.setattr(training_step, "TrainingGraph", InDouble)
    scored, score = [], validation.score
    patch.setattr(validation, "score", lambda path, found, *more: scored.append(found) or score(path, found, *more))
    return scored


def count_minutes_in_steps(patch: pytest.MonkeyPatch) -> None:
    """A clock on which each step takes a minute and everything else no time."""
    patch.setattr(training_run.Run, "seconds", property(lambda run: 60.0 * run.step))


def one_of_the_workers(rank: int, project: Path, folder: Path, changes: dict[str, Any], world: int) -> None:
    torch.set_num_threads(1)
    scored = compute_in_double(pytest.MonkeyPatch())
    if rank == 1:
        count_minutes_in_steps(pytest.MonkeyPatch())
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    settings = config(**changes)
    if distributed.form_team(settings.batch):
        result = fitted(project, settings, work=folder / "work" / str(rank))
        if rank == 0:
            torch.save((distributed.world(), result.model.state_dict(), result.rows), folder / "result.pt")
            scored[-1].write(folder / "scored.json")
    dist.destroy_process_group()


@pytest.mark.parametrize(
    ("changes", "steps", "world", "team"),
    [
        # One worker's time is up at step 17; the next update of the weights is at step 18.
        pytest.param(TOGETHER | {"max_minutes": 17}, 18, 2, 2, id="plain"),
        pytest.param(WITH_AUXILIARY_HEADS, 4, 2, 2, id="auxiliary", marks=pytest.mark.slow),
        pytest.param(TOGETHER, 20, 4, 4, id="four", marks=pytest.mark.slow),
        pytest.param(TOGETHER, 20, 3, 2, id="three, one without a share in a batch of 4", marks=pytest.mark.slow),
    ],
)
def test_several_workers_agree_with_one(
    project: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    steps: int,
    world: int,
    team: int,
) -> None:
    scored = compute_in_double(monkeypatch)
    count_minutes_in_steps(monkeypatch)
    alone = fitted(project, config(**changes))
    arguments = project, tmp_path, changes, world
    mp.start_processes(one_of_the_workers, arguments, world, start_method=START_METHOD)
    size, weights, rows = torch.load(tmp_path / "result.pt", weights_only=True)
    assert (alone.steps, size) == (steps, team)
    for name, expected in alone.model.state_dict().items():
        torch.testing.assert_close(weights[name], expected, rtol=1e-6, atol=1e-6, msg=name)
    for row, expected in zip(rows, alone.rows, strict=True):
        assert row == pytest.approx(expected, rel=1e-6)
    together = Detections.of(json.loads((tmp_path / "scored.json").read_text()))
    assert len(set(together.image_id)) == 4
    assert together.image_id.tolist() == scored[-1].image_id.tolist()
    assert together.score == pytest.approx(scored[-1].score, abs=2e-6)  # they are rounded to a millionth


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Ray on this machine, once for the tests that need it."""
    import ray

    ray.init("local", include_dashboard=False, num_cpus=WORKERS)
    yield
    ray.shutdown()


@pytest.mark.slow
def test_two_ray_workers_agree_with_one(
    project: Path, tracking: None, cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    together = "train.sync_bn=true", "train.amp='off'"
    run(project, "alone", *together)
    run(project, "together", *together, f"train.workers={WORKERS}", log=on_stdout("text", MODEL))
    one, two = (json.loads((project / name / "train.json").read_text()) for name in ("alone", "together"))
    assert (one["workers"], two["workers"]) == (1, WORKERS)
    curves = [(project / name / "curves.csv").read_text().splitlines()[1:] for name in ("alone", "together")]
    first, expected = ([float(value) for value in rows[0].split(",")[3:7]] for rows in curves)
    assert first == pytest.approx(expected, rel=0.003)  # float32: rounding grows from step to step
    assert len(curves[0]) == len(curves[1]) == 5
    said = [line.split("  ")[0] for line in capsys.readouterr().out.splitlines() if line.startswith(MODEL)]
    assert said == [f"{MODEL} {epoch}/5" for epoch in range(1, 6)], "by the driver, once"


@pytest.mark.slow
def test_a_mistake_found_by_a_ray_worker_is_one_line(project: Path, tracking: None, cluster: None) -> None:
    with pytest.raises(UserError, match=r"batch.* 3: .*workers") as caught:
        run(project, "mistake", "train.batch=3", f"train.workers={WORKERS}")
    assert "\n" not in str(caught.value)
