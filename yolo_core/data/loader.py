"""Batches for training and evaluation, loaded in the background while a step runs."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from yolo_core.ahead import ahead
from yolo_core.data.coco import DetectionDataset
from yolo_core.data.image import fitted, load_image
from yolo_core.data.letterbox import PAD, Letterbox, canvas, centred
from yolo_core.data.sampling import epoch_order, multi_scale_size
from yolo_core.errors import UserError
from yolo_core.hyperparameters import Hyperparameters

__all__ = ["Batch", "EvalBatch", "TrainBatches", "ValBatches", "load_image", "train_batches", "val_batches"]

AHEAD = 2  # batches prefetched
T = TypeVar("T")


class Batch(NamedTuple):
    """images: RGB (B, 3, S, S) uint8. targets: (T, 6) float32: image in the batch, class, cx, cy, w, h px."""

    images: torch.Tensor
    targets: torch.Tensor


class EvalBatch(NamedTuple):
    """images: RGB (B, 3, H, W) uint8; per image, its index in the dataset and its place on the canvas."""

    images: torch.Tensor
    indices: list[int]
    letterboxes: list[Letterbox]


@dataclass(frozen=True)
class TrainBatches:
    """The training batches of one epoch for one rank; see `train_batches`. Each iteration starts from the beginning."""

    dataset: DetectionDataset
    hyp: Hyperparameters
    size: int
    seed: int
    epoch: int
    indices: np.ndarray  # (steps, B) samples of this rank, from `epoch_order`
    start_step: int
    workers: int
    multi_scale: bool
    stride: int

    def __len__(self) -> int:
        return max(len(self.indices) - self.start_step, 0)

    def __iter__(self) -> Iterator[Batch]:
        self.dataset.open_cache(self.size)  # before forking loader processes, so that they share it
        steps = range(self.start_step, len(self.indices))
        if self.workers:
            return _by_processes(self.load, steps, self.workers)
        return ahead(map(self.load, steps), AHEAD, _quiet_opencv)

    def load(self, step: int) -> Batch:
        """Make the batch of one step."""
        from yolo_core.data.mosaic import training_sample  # compiled loops, needed only here

        size = self.size
        if self.multi_scale:
            size = multi_scale_size(size, self.stride, self.seed, self.epoch, step)
        samples = self.indices[step]
        images = torch.empty((len(samples), 3, size, size), dtype=torch.uint8)
        targets = []
        for position, (planes, sample) in enumerate(zip(images.numpy(), samples, strict=True)):
            _, labels = training_sample(
                self.dataset, self.hyp, size, self.seed, self.epoch, int(sample), self.size, planes
            )
            targets.append(np.insert(labels, 0, position, axis=1))
        return Batch(images, torch.from_numpy(np.concatenate(targets)))


def train_batches(
    dataset: DetectionDataset,
    hyp: Hyperparameters,
    *,
    size: int,
    batch: int,
    seed: int,
    epoch: int,
    start_step: int = 0,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    multi_scale: bool = False,
    stride: int = 32,
) -> TrainBatches:
    """The augmented batches of one epoch.

    size: side in px, a multiple of `stride`, the largest stride of the model; with `multi_scale` each batch draws its
        own within 50 % of it.
    batch: images over all `world` ranks, of which this one loads a contiguous part: the global batch is the same for
        any `world`.
    start_step: batches to skip, to resume within an epoch.
    workers: loader processes; 0 loads in a thread of this process.
    The last incomplete batch is dropped; a dataset smaller than one batch is repeated to fill it. An epoch holds each
    image once, or as often as `dataset.repeats` draws it.
    Raises UserError for an empty dataset or inconsistent arguments.
    """
    if not len(dataset):
        raise UserError(f"{dataset.annotation_path}: no images to train on")
    if batch % world:
        raise UserError(f"batch {batch} cannot be split evenly among {world} workers; choose a multiple of {world}")
    if size % stride:
        raise UserError(f"training size {size} is not a multiple of the model's largest stride {stride}")
    part = slice(rank * batch // world, (rank + 1) * batch // world)
    indices = epoch_order(len(dataset), batch, seed, epoch, dataset.repeats)[:, part]
    return TrainBatches(dataset, hyp, size, seed, epoch, indices, start_step, workers, multi_scale, stride)


@dataclass(frozen=True)
class ValBatches:
    """The evaluation batches of a dataset; see `val_batches`."""

    dataset: DetectionDataset
    size: int
    batches: Sequence[tuple[list[int], tuple[int, int]]]  # dataset indices and canvas (height, width)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[EvalBatch]:
        return ahead(map(self.load, range(len(self.batches))), AHEAD, _quiet_opencv)

    def load(self, step: int) -> EvalBatch:
        """Make one batch."""
        indices, canvas = self.batches[step]
        images = torch.empty((len(indices), 3, *canvas), dtype=torch.uint8)
        letterboxes = []
        for planes, index in zip(images.numpy(), indices, strict=True):
            record = self.dataset.images[index]
            image, box = centred(self.dataset.image(index, self.size), (record.width, record.height), canvas)
            cv2.split(image, list(planes))
            letterboxes.append(box)
        return EvalBatch(images, indices, letterboxes)


def val_batches(
    dataset: DetectionDataset, *, size: int, batch: int, stride: int = 32, rect: bool = True, pad: float = PAD
) -> ValBatches:
    """Every image once, its longer side resized to `size` px and centred on grey; the last batch may be smaller.

    rect: sort by aspect ratio and give each batch the smallest canvas, in multiples of `stride`, that holds its images
        plus `pad` strides; otherwise the canvas is square, `size` rounded up to a multiple of `stride`.
    """
    sizes = np.array([fitted(r.width, r.height, size)[::-1] for r in dataset.images]).reshape(-1, 2)  # h, w
    order = np.argsort(sizes[:, 0] / sizes[:, 1], kind="stable") if rect else np.arange(len(dataset))
    batches = []
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        height, width = sizes[chosen].max(axis=0).tolist() if rect else (size, size)
        batches.append((chosen.tolist(), canvas(height, width, stride, pad if rect else 0)))
    return ValBatches(dataset, size, batches)


def _quiet_opencv(_: object = None) -> None:
    """Turn off OpenCV's own threads: they would take cores from the training step that runs meanwhile."""
    cv2.setNumThreads(0)


class _Steps(Dataset):
    """Steps as a map-style dataset whose items are whole batches."""

    def __init__(self, load: Callable[[int], object], steps: Sequence[int]):
        self.load = load
        self.steps = steps

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, item: int) -> object:
        try:
            return self.load(self.steps[item])
        except UserError as error:  # returned as a value: torch would wrap its one line in a traceback
            return error


def _unchanged(item: T) -> T:
    return item


def _by_processes(load: Callable[[int], T], steps: Sequence[int], workers: int) -> Iterator[T]:
    """Results in order from loader processes."""
    loader = DataLoader(
        _Steps(load, steps),
        batch_size=None,
        num_workers=workers,
        collate_fn=_unchanged,
        worker_init_fn=_quiet_opencv,
        prefetch_factor=AHEAD,
        pin_memory=torch.cuda.is_available(),
    )
    for result in loader:
        if isinstance(result, UserError):
            raise result
        yield result
