"""What determines weights: which parameters, and which code."""

import dataclasses
import json
from pathlib import Path

import pytest

from components import parameter_file
from components.lineage.record import IMAGE_VARIABLE, REQUESTED_VARIABLE, lineage, parameters_digest
from components.params import Params
from components.training import configuration
from yolo_core.models import get_spec

ROOT = Path(__file__).parents[2]
MODEL = "yolov4-tiny"


def load(*overrides: str) -> Params:
    return parameter_file.load(ROOT / "params.yaml", list(overrides))


@pytest.mark.parametrize(
    "change",
    [
        "seed=7",
        "train.epochs=99",
        "train.patience=9",
        "train.max_minutes=9",
        f"train.per_model.{MODEL}.epochs=99",
        "evolve.trials=9",
        "anchors.generations=9",
    ],
)
def test_parameters_behind_the_weights_count(change: str) -> None:
    assert parameters_digest(load(change), MODEL) != parameters_digest(load(), MODEL)


@pytest.mark.parametrize(
    "change", ["models=[yolov7]", "train.cache_gib=9", "train.per_model.yolov7.epochs=99", "promote.confidence=0.9"]
)
def test_others_do_not(change: str) -> None:
    assert parameters_digest(load(change), MODEL) == parameters_digest(load(), MODEL)


def test_values_that_the_recipe_supplies_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a release changes the published recipe or a default, which params.yaml does not show."""
    before = parameters_digest(load(), MODEL)
    spec = get_spec(MODEL)
    changed = dataclasses.replace(spec, hyp=spec.hyp.replace(warmup_bias_lr=0.2))
    assert spec.hyp.warmup_bias_lr == 0.1
    monkeypatch.setattr(configuration, "get_spec", lambda name: changed)
    assert parameters_digest(load(), MODEL) != before


def test_a_device_that_this_machine_lacks_is_no_obstacle() -> None:
    """The step that checks the source has no GPU."""
    digests = {parameters_digest(load(f"train.device={device}"), MODEL) for device in ("auto", "cpu", "cuda:7")}
    assert len(digests) == 3


def test_a_pipeline_names_its_image_and_the_requested_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(IMAGE_VARIABLE, "registry/name:1")
    monkeypatch.setenv(REQUESTED_VARIABLE, json.dumps({MODEL: "before"}))
    made_of = lineage(load(), MODEL, "data")
    assert (made_of["data"], made_of["parameters"], made_of["image"]) == ("data", "before", "registry/name:1")
    assert lineage(load(), "yolov7", "data")["parameters"] == parameters_digest(load(), "yolov7")
