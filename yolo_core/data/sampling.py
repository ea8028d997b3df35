"""Counter-based randomness: every draw of a training run is a function of (seed, purpose, epoch, number).

Philox turns a key and a counter into random bits without state between samples, so a sample is the same for any
number of workers and ranks, in any order, and after any restart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

# Purposes: an independent stream each under the same seed.
SAMPLE, ORDER, SIZE, REPEATS = range(4)

ONE = 1 << 24  # repeat factors are integers in units of 1 / ONE, so that their sums are exact


def generator(seed: int, purpose: int, epoch: int, number: int = 0) -> np.random.Generator:
    """The generator of one sample, epoch or batch. All arguments are non-negative and below 2**63."""
    # The two low words of the counter count the draws, the two high ones identify the sample.
    return np.random.Generator(np.random.Philox(key=[seed, purpose], counter=[0, 0, epoch, number]))


@dataclass(frozen=True)
class Repeats:
    """Repeat-factor sampling: how often each image is drawn (LVIS, arXiv 1908.03195)."""

    factors: np.ndarray
    """(n,) int64 repeat factor of each image in units of 1 / ONE, at least ONE."""

    @property
    def samples(self) -> int:
        """Samples of an epoch that may be relied on; some epochs have one more."""
        return int(self.factors.sum()) // ONE

    def draw(self, seed: int, epoch: int) -> np.ndarray:
        """The samples of one epoch in random order, int64: image i as i, i + n, i + 2 n, ..., for each repeat.

        Each factor is rounded at random, up with the probability of its fraction. This is done along a random order of
        the images, where the sum of those before decides: so the sum of all is rounded too, to one of its neighbours.
        """
        rng, images = generator(seed, REPEATS, epoch), len(self.factors)
        order = rng.permutation(images)
        whole, fraction = np.divmod(self.factors[order], ONE)
        counts = whole + np.diff((rng.integers(ONE) + np.cumsum(fraction)) // ONE, prepend=0)
        repeat = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return rng.permutation(np.repeat(order, counts) + images * repeat)

    def others(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """`count` images for a mosaic, drawn independently in proportion to their factors."""
        return np.searchsorted(self._ends, rng.integers(self._ends[-1], size=count), side="right")

    @cached_property
    def _ends(self) -> np.ndarray:
        return np.cumsum(self.factors)


def repeats_by_class(labels: Sequence[np.ndarray], threshold: float) -> Repeats:
    """The repeat factors of images with these labels, (N, 5) each, the class index first.

    max(1, sqrt(threshold / f)) of the class in the image for which this is largest; f is the fraction of images that
    hold the class. An image without objects has factor 1.
    """
    owners = np.repeat(np.arange(len(labels)), [len(rows) for rows in labels])
    classes = np.concatenate([rows[:, 0] for rows in labels]).astype(np.int64)
    known = int(classes.max(initial=0)) + 1
    owners, classes = np.divmod(np.unique(owners * known + classes), known)  # each class of an image once
    frequency = np.bincount(classes, minlength=known) / len(labels)
    factors = np.ones(len(labels))
    np.maximum.at(factors, owners, np.sqrt(threshold / frequency[classes]))
    return Repeats(np.rint(factors * ONE).astype(np.int64))


def epoch_order(length: int, batch: int, seed: int, epoch: int, repeats: Repeats | None = None) -> np.ndarray:
    """The sample indices of one epoch by step, (steps, batch) int64: a permutation given by (seed, epoch).

    The last incomplete batch is dropped. A dataset smaller than one batch is repeated to fill one, with `length` added
    to its indices each time: the same images with different draws. So it is for an image that `repeats` draws again.
    """
    order = repeats.draw(seed, epoch) if repeats else generator(seed, ORDER, epoch).permutation(length)
    count = repeats.samples if repeats else length
    if count < batch:
        rounds = -(-batch // count)
        apart = length * (1 + int(order.max()) // length)
        order = (order + apart * np.arange(rounds)[:, None]).reshape(-1)
    steps = max(count // batch, 1)
    return order[: steps * batch].reshape(steps, batch)


def multi_scale_size(size: int, stride: int, seed: int, epoch: int, step: int) -> int:
    """Side in px of one batch: a multiple of `stride` within 50 % of `size`, drawn uniformly by (seed, epoch, step)."""
    low = max(-(-size // (2 * stride)), 1)
    high = 3 * size // (2 * stride)
    return stride * int(generator(seed, SIZE, epoch, step).integers(low, high, endpoint=True))
