"""All detectors side by side: the cost counted here and the figures of the paper."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from yolo_core.models.cost import Cost, paper_cost
from yolo_core.models.spec import Published
from yolo_core.models.zoo import build_model, get_spec, model_names


@dataclass(frozen=True)
class Entry:
    """One detector."""

    name: str
    """The name used in parameters and options."""

    size: int
    """Native input side, px."""

    cost: Cost
    """Counted the way its paper does."""

    published: Published
    """The figures in its paper."""


def entries(num_classes: int) -> Iterator[Entry]:
    """Every detector, built for `num_classes` classes."""
    for name in model_names():
        spec = get_spec(name)
        with torch.device("meta"):  # counting needs shapes, not weights
            cost = paper_cost(build_model(name, num_classes), spec.native_size)
        yield Entry(name, spec.native_size, cost, spec.published)
