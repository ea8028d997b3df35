"""Compiled loops where their machine code can be cached and where it cannot."""

import numpy as np

from yolo_core.compiled import compiled


@compiled
def halves(numbers):
    for i in range(len(numbers)):
        numbers[i] = 1 / numbers[i] / 2
    return numbers


def test_division_is_that_of_numpy():
    assert halves(np.array([0.25, 0.0])).tolist() == [2, np.inf]


def test_a_function_without_a_file_is_compiled_anyway():
    """numba finds no place to cache its machine code, as where no folder is writable."""
    namespace: dict = {}
    exec("def twice(x):\n    return 2 * x", namespace)
    assert compiled(namespace["twice"])(3) == 6
