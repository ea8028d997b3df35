"""Counter-based randomness: every draw of a training run is a function of (seed, purpose, epoch, number).

Philox turns a key and a counter into random bits without state between samples, so a sample is the same for any
number of workers and ranks, in any order, and after any restart.
"""

import numpy as np

# Purposes: an independent stream each under the same seed.
SAMPLE, ORDER, SIZE = range(3)


def generator(seed: int, purpose: int, epoch: int, number: int = 0) -> np.random.Generator:
    """The generator of one sample, epoch or batch. All arguments are non-negative and below 2**63."""
    # The two low words of the counter count the draws, the two high ones identify the sample.
    return np.random.Generator(np.random.Philox(key=[seed, purpose], counter=[0, 0, epoch, number]))


def epoch_order(length: int, batch: int, seed: int, epoch: int) -> np.ndarray:
    """The sample indices of one epoch by step, (steps, batch) int64: a permutation given by (seed, epoch).

    The last incomplete batch is dropped. A dataset smaller than one batch is repeated to fill one, with `length` added
    to its indices each time: the same images with different draws.
    """
    order = generator(seed, ORDER, epoch).permutation(length)
    if length < batch:
        rounds = -(-batch // length)
        order = (order + length * np.arange(rounds)[:, None]).reshape(-1)
    steps = max(length // batch, 1)
    return order[: steps * batch].reshape(steps, batch)


def multi_scale_size(size: int, stride: int, seed: int, epoch: int, step: int) -> int:
    """Side in px of one batch: a multiple of `stride` within 50 % of `size`, drawn uniformly by (seed, epoch, step)."""
    low = max(-(-size // (2 * stride)), 1)
    high = 3 * size // (2 * stride)
    return stride * int(generator(seed, SIZE, epoch, step).integers(low, high, endpoint=True))
