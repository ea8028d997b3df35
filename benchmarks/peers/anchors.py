"""The original anchor fit, and the k-means it starts from."""

import contextlib
import importlib
import io
from types import SimpleNamespace

import numpy as np

from benchmarks.anchors import ANCHOR_T, ANCHORS, SETTINGS, SIZE, timed
from benchmarks.contender import Round
from benchmarks.peers import torchvision_stand_in


def original(boxes: int) -> Round:
    """yolov7's own function, given a dataset in memory: one square image of the training size with all boxes."""
    torchvision_stand_in.install()
    autoanchor = importlib.import_module("utils.autoanchor")

    def once(sides: np.ndarray) -> np.ndarray:
        labels = np.column_stack((np.zeros((len(sides), 3)), sides / SIZE))
        dataset = SimpleNamespace(shapes=np.array([[SIZE, SIZE]], float), labels=[labels])
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return autoanchor.kmean_anchors(dataset, ANCHORS, SIZE, ANCHOR_T, SETTINGS.generations, verbose=False)

    return timed(once, boxes)


def scipy_kmeans(boxes: int) -> Round:
    from scipy.cluster.vq import kmeans

    def once(sides: np.ndarray) -> np.ndarray:
        spread = sides.std(axis=0)
        return kmeans(sides / spread, ANCHORS, iter=SETTINGS.kmeans_iterations)[0] * spread

    return timed(once, boxes)
