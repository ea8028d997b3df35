"""What weights come from: which parameters, and which code."""

import json
from pathlib import Path

import pytest
import yaml

from components import params
from components.tracking.lineage import (
    ASKED_VARIABLE,
    CODE,
    IMAGE_VARIABLE,
    PREPARE_CODE,
    code_digest,
    lineage,
    parameters_digest,
)

ROOT = Path(__file__).parents[3]
MODEL = "yolov4-tiny"


def load(*overrides: str) -> params.Params:
    return params.load(ROOT / "params.yaml", list(overrides))


@pytest.mark.parametrize(
    "change",
    ["seed=7", "train.epochs=99", f"train.per_model.{MODEL}.epochs=99", "evolve.trials=9", "anchors.generations=9"],
)
def test_parameters_behind_the_weights_count(change: str) -> None:
    assert parameters_digest(load(change), MODEL) != parameters_digest(load(), MODEL)


@pytest.mark.parametrize(
    "change", ["models=[yolov7]", "train.cache_gib=9", "train.per_model.yolov7.epochs=99", "promote.confidence=0.9"]
)
def test_others_do_not(change: str) -> None:
    assert parameters_digest(load(change), MODEL) == parameters_digest(load(), MODEL)


def test_the_code_is_that_of_the_stages_which_make_the_weights() -> None:
    assert set(CODE) == code_of("anchors", "evolve", "train")
    assert set(PREPARE_CODE) == code_of("prepare")
    assert all((ROOT / place).exists() for place in (*CODE, *PREPARE_CODE))
    assert len({code_digest(CODE), code_digest(PREPARE_CODE)}) == 2


def code_of(*names: str) -> set[str]:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    deps = {dep for name in names for dep in stages[name]["deps"]}
    return {dep for dep in deps if dep.startswith(("components/", "yolo_core/"))}


def test_a_pipeline_says_its_image_and_what_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(IMAGE_VARIABLE, "registry/name:1")
    monkeypatch.setenv(ASKED_VARIABLE, json.dumps({MODEL: "before"}))
    made_of = lineage(load(), MODEL, "data")
    assert (made_of["data"], made_of["parameters"], made_of["image"]) == ("data", "before", "registry/name:1")
    assert lineage(load(), "yolov7", "data")["parameters"] == parameters_digest(load(), "yolov7")
