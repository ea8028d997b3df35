"""What `init` proposes for data and machines of all kinds."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from components import parameter_file
from components.project.machine import Machine, NoRoom, Speed
from components.project.proposal import Choice, Start, propose, values
from components.project.survey import Survey
from components.training.configuration import resolved

DATA = Survey(800, 100, {"cat": 900, "dog": 600}, image_side=640, box_side=0.05, small=0.2)
CPU = Machine("cpu", "2 CPU cores", gpus=0, cores=2, memory_gib=8.0, precision="float32")
GPU = Machine("cuda", "NVIDIA L4", gpus=1, cores=8, memory_gib=22.0, precision="bfloat16")


def trains_at(images_per_second: float) -> Callable[[list[Choice]], Speed]:
    return lambda choices: Speed(images_per_second, 1.0)


def proposed(data: Survey = DATA, machine: Machine = CPU, start: Start | None = None, hours: float = 1.0) -> Any:
    found = propose(data, machine, start, hours, trains_at(20.0))
    return values(found.choices), found


def test_the_parameters_are_valid_and_each_has_a_reason() -> None:
    for data in (DATA, replace(DATA, train_images=3), replace(DATA, train_images=100_000, image_side=50)):
        for machine in (CPU, GPU, replace(GPU, gpus=8, cores=96)):
            given, found = proposed(data, machine)
            parameter_file.of_values(given)
            assert all(choice.reason for choice in found.choices)


def test_the_time_decides_the_epochs() -> None:
    """800 images at 20/s, times 1.15 for evaluations: 46 s an epoch, 78 epochs an hour."""
    given, found = proposed()
    assert given["train"]["epochs"] == 78
    assert found.hours == pytest.approx(78 * 46 / 3600)
    assert proposed(hours=0.01)[0]["train"]["epochs"] == 30
    assert proposed(hours=0.01)[1].hours == pytest.approx(30 * 46 / 3600), "the true time, though more was asked for"
    assert proposed(hours=99)[0]["train"]["epochs"] == 300


@pytest.mark.parametrize(
    ("box_side", "image_side", "machine", "size"),
    [
        (0.05, 640, CPU, 320),  # 0.05 * 320 = 16 px
        (0.03, 640, CPU, 416),  # 0.03 * 320 = 9.6 px, 0.03 * 416 = 12.5 px
        (0.01, 640, CPU, 416),  # too small at any size that a CPU can train at
        (0.02, 640, GPU, 640),
        (0.05, 200, CPU, 224),  # no larger than the images
        (0.05, 200, GPU, 224),
        (0.01, 4000, GPU, 640),
    ],
)
def test_the_size_shows_small_boxes(box_side: float, image_side: int, machine: Machine, size: int) -> None:
    given, _ = proposed(replace(DATA, box_side=box_side, image_side=image_side), machine)
    assert given["train"]["size"] == size


def test_few_images_mean_small_batches_that_each_update_the_weights() -> None:
    assert {"batch", "nominal_batch"}.isdisjoint(proposed()[0]["train"])
    few = proposed(replace(DATA, train_images=20))[0]["train"]
    assert (few["batch"], few["nominal_batch"]) == (4, 4)


def test_images_times_epochs_decide_the_recipe() -> None:
    """At 20 images/s, times 1.15 for evaluations, an hour has 62,609 samples; 5,000 images have 300 epochs at most."""
    assert proposed()[0]["train"]["recipe"] == "small"
    assert proposed(replace(DATA, train_images=5_000), hours=10)[0]["train"]["recipe"] == "small"  # 625,000
    assert "recipe" not in proposed(replace(DATA, train_images=5_000), hours=20)[0]["train"]  # 1,250,000
    start = Start("w.safetensors", "yolov7-tiny", size=416, width=1.0, depth=1.0)
    assert proposed(start=start)[0]["train"]["recipe"] == "fine-tune"


def test_the_machine_decides_model_and_processes() -> None:
    assert proposed()[0]["models"] == ["yolov4-tiny"]
    large = replace(DATA, train_images=5000)
    assert proposed(large)[0]["models"] == ["yolov4-tiny"]
    one = proposed(large, GPU)[0]
    assert (one["models"], one["train"]["loader_workers"]) == (["yolov4-csp"], 7)
    assert "workers" not in one["train"]
    many = proposed(large, replace(GPU, gpus=4, cores=32))[0]["train"]
    assert (many["workers"], many["gpus_per_worker"], many["loader_workers"]) == (4, 1, 7)


def test_weights_decide_the_model_and_if_they_can_the_size() -> None:
    start = Start("w.safetensors", "yolov7-tiny", size=416, width=0.5, depth=1.0)
    given = proposed(start=start)[0]
    assert given["models"] == ["yolov7-tiny"]
    assert {key: given["train"][key] for key in ("size", "weights", "width")} == {
        "size": 416,
        "weights": "w.safetensors",
        "width": 0.5,
    }
    assert "depth" not in given["train"]
    assert proposed(start=replace(start, size=1280))[0]["train"]["size"] == 320, "a CPU cannot train at 1280 px"


def test_a_batch_that_does_not_fit_is_halved() -> None:
    """16 and 8 images have no room; the weights are still updated after 16, as the recipe says."""

    def measured(choices: list[Choice]) -> Speed:
        if values(choices)["train"].get("batch", 16) > 4:
            raise NoRoom("too much")
        return Speed(20.0, 1.0)

    given = values(propose(DATA, GPU, None, 1.0, measured).choices)
    config = resolved(parameter_file.of_values(given), "yolov4-tiny")
    assert (config.batch, config.nominal_batch) == (4, 16)


def test_no_room_for_one_image_is_said() -> None:
    def measured(choices: list[Choice]) -> Speed:
        raise NoRoom("too much")

    with pytest.raises(NoRoom):
        propose(DATA, GPU, None, 1.0, measured)


def test_several_gpus_train_as_many_times_as_fast() -> None:
    one, four = (propose(DATA, machine, None, 1.0, trains_at(5.0)) for machine in (GPU, replace(GPU, gpus=4)))
    assert (one.hours, values(one.choices)["train"]["epochs"]) == (pytest.approx(30 * 184 / 3600), 30)
    assert values(four.choices)["train"]["epochs"] == 78  # 46 s each, as at 20 images/s


def test_what_is_measured_is_what_is_proposed() -> None:
    seen: list[list[Choice]] = []
    found = propose(DATA, CPU, None, 1.0, lambda choices: seen.append(list(choices)) or Speed(20.0, 1.0))
    assert list(found.choices[: len(seen[0])]) == seen[0]
    assert {choice.key for choice in found.choices} - {choice.key for choice in seen[0]} == {
        "train.epochs",
        "train.recipe",
    }
