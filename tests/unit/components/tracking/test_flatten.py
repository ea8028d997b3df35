"""Nested parameters as flat ones."""

from components.tracking.runs import flatten


def test_sections_are_joined_by_dots_and_weights_by_class_stay_together():
    values = {"train": {"hyp": {"lr0": 0.1}, "freeze": ["a"], "per_model": {}, "class_weights": {"café (new)": 2.0}}}
    assert flatten(values) == {
        "train.hyp.lr0": 0.1,
        "train.freeze": ["a"],
        "train.class_weights": {"café (new)": 2.0},
    }
