"""The table of what each model's training needs from a cluster, checked against the recipes and the counted memory."""

from dataclasses import astuple, replace
from pathlib import Path

import pytest

from components import parameter_file
from pipelines.rayjob.sizes import JOB_SIZES, job_size, training_workers, with_gpus
from yolo_core.errors import UserError
from yolo_core.models import get_spec, model_names
from yolo_core.models.planner import count, count_training

RECIPES = parameter_file.load(Path(__file__).parents[2] / "params" / "coco.yaml")
GIB = 2**30
QUICK = ("yolov7-tiny-silu",)  # counting takes a second each
USABLE = 0.9  # of a GPU's memory: CUDA itself, cuDNN's workspaces and fragmentation take the rest


@pytest.mark.parametrize("name", model_names())
def test_every_model_has_a_size_that_holds_its_published_batch(name: str) -> None:
    size = job_size(name)
    assert size.all_gpus * size.batch >= RECIPES.train_settings(name).batch


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in JOB_SIZES]
)
def test_a_gpu_holds_its_images(name: str) -> None:
    """Four bytes each for weights, gradients, momentum and average, and what half precision keeps for the backward."""
    size, spec, recipe = job_size(name), get_spec(name), RECIPES.train_settings(name)
    states = 4 * 4 * count(name).params
    kept = count_training(name, 1.0, 1.0, 80) / 2 * (recipe.size / spec.native_size) ** 2
    assert states + size.batch * kept <= USABLE * size.gpu_memory * GIB


def test_p7_is_the_largest() -> None:
    largest = replace(job_size("yolov4-p7"), batch=0)
    for name in model_names():
        assert all(a <= b for a, b in zip(astuple(replace(job_size(name), batch=0)), astuple(largest), strict=True))


def test_shared_memory_is_a_part_of_the_memory() -> None:
    assert all(size.shm < size.memory for size in map(job_size, model_names()))


def test_an_unknown_model_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"yolov4-p8.*yolov4-p"):
        job_size("yolov4-p8")


def test_workers_share_a_batch_evenly() -> None:
    p7 = job_size("yolov4-p7")  # 16 GPUs
    assert [training_workers(p7, batch) for batch in (64, 24, 10, 7)] == [16, 12, 10, 7]
    assert training_workers(job_size("yolov4-tiny"), 64) == 1


def test_many_small_trainings_take_whole_nodes() -> None:
    csp = job_size("yolov4-csp")  # 4 GPUs a node
    assert [with_gpus(csp, gpus).nodes for gpus in (0, 0.5, 4, 4.5, 16)] == [1, 1, 1, 2, 4]
