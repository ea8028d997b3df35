"""The recipes change the models' published hyperparameters, within their ranges."""

import pytest

from yolo_core.hyperparameters import Hyperparameters
from yolo_core.model_names import NAMES
from yolo_core.models import get_spec
from yolo_core.recipes import RECIPES


@pytest.mark.parametrize("model", NAMES)
def test_the_published_recipe_is_that_of_the_model(model: str):
    published = get_spec(model).hyp
    assert RECIPES["published"].hyperparameters(published) == published
    assert (RECIPES["published"].nominal_batch, RECIPES["published"].ema_tau) == (64, 2000)


@pytest.mark.parametrize("name", ["small", "fine-tune"])
def test_the_others_need_neither_many_classes_nor_large_images_nor_long_trainings(name):
    hyp = RECIPES[name].hyperparameters(Hyperparameters())
    assert (hyp.cls_count_power, hyp.obj_size_power, hyp.warmup_iterations) == (0, 0, 0)
    assert hyp.momentum == Hyperparameters().momentum
