"""Weights of the classes in the loss: balanced by boxes, given by name, and what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolo_core.errors import BadArgument
from yolo_core.losses.class_weights import class_weights


def rows(*classes: int) -> np.ndarray:
    return np.array([(c, 0, 0, 9, 9) for c in classes], np.float32).reshape(-1, 5)


def test_balanced_weights_by_hand():
    """Six, two and no boxes: 8 / (2 x 6) = 2/3 and 8 / (2 x 2) = 2; the third class is never weighed."""
    labels = [rows(0, 0, 0, 1), rows(), rows(0, 1, 0, 0)]
    assert class_weights("balanced", ["cat", "dog", "emu"], labels) == pytest.approx([2 / 3, 2, 1])


@given(st.lists(st.integers(0, 6), max_size=40))
def test_balanced_weights_make_classes_equal_and_keep_the_mean(classes):
    weights = np.array(class_weights("balanced", [str(i) for i in range(7)], [rows(*classes)]))
    total = np.bincount(classes, minlength=7) * weights
    np.testing.assert_allclose(total[total > 0], len(classes) / max(len(set(classes)), 1))
    assert (weights > 0).all()


def test_named_weights_leave_the_other_classes_at_one():
    assert class_weights({"emu": 3.5}, ["cat", "dog", "emu"], [rows(0)]) == [1, 1, 3.5]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("persn", "names the unknown class 'persn'; did you mean person?"),
        ("zzz", "names the unknown class 'zzz'; the data have person, car"),
    ],
)
def test_an_unknown_name_is_refused_with_the_ones_near(name, problem):
    with pytest.raises(BadArgument) as refused:
        class_weights({"car": 2, name: 2}, ["person", "car"], [rows(0)])
    assert str(refused.value) == f"class_weights {problem}"


def test_weights_of_the_only_class_are_refused():
    with pytest.raises(BadArgument, match="no effect on a single class"):
        class_weights({"car": 2}, ["car"], [rows(0)])
