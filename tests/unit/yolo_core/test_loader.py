"""Batches: their content, their order for any world size, workers and start, and how loading ends."""

import gc
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from coco_folder import write_split
from hypothesis import given
from hypothesis import strategies as st
from waiting import join, until

from yolo_core.data.coco import DetectionDataset, load_split
from yolo_core.data.letterbox import letterbox
from yolo_core.data.loader import Batch, train_batches, val_batches
from yolo_core.data.mosaic import training_sample
from yolo_core.data.sampling import ONE, Repeats, epoch_order, multi_scale_size
from yolo_core.errors import UserError
from yolo_core.hyperparameters import Hyperparameters

SIZES = [(80, 60), (60, 80), (100, 45), (48, 48), (32, 75), (85, 64), (50, 40), (64, 33), (33, 64), (70, 70)]
HYP = Hyperparameters(mixup=0.3, paste_in=0.5)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> DetectionDataset:
    return load_split(write_split(tmp_path_factory.mktemp("loader"), SIZES), "train")


def batches(data: DetectionDataset, **changes) -> list[Batch]:
    return list(train_batches(data, HYP, **{"size": 64, "batch": 4, "seed": 1, "epoch": 2, **changes}))


def assert_equal(left: list[Batch], right: list[Batch]) -> None:
    assert len(left) == len(right) > 0
    for a, b in zip(left, right, strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.targets, b.targets)


def test_a_batch_holds_its_samples_and_targets(data):
    loaded = batches(data)
    assert len(loaded) == len(train_batches(data, HYP, size=64, batch=4, seed=1, epoch=2)) == 2  # 10 // 4
    for batch, indices in zip(loaded, epoch_order(10, 4, 1, 2), strict=True):
        assert batch.images.shape == (4, 3, 64, 64)
        assert batch.images.dtype == torch.uint8
        assert batch.images.is_contiguous()
        assert batch.targets.dtype == torch.float32
        for position, index in enumerate(indices):
            image, labels = training_sample(data, HYP, 64, 1, 2, int(index))
            np.testing.assert_array_equal(batch.images[position], image)
            np.testing.assert_array_equal(batch.targets[batch.targets[:, 0] == position, 1:], labels)


def test_batches_without_any_box_have_empty_targets(tmp_path):
    empty = load_split(write_split(tmp_path, [(40, 40)] * 2, annotations=[]), "train")
    assert batches(empty, batch=2)[0].targets.shape == (0, 6)


@pytest.mark.parametrize("world", [2, 4])
def test_the_global_batch_is_the_same_for_any_world(data, world):
    parts = [batches(data, rank=rank, world=world) for rank in range(world)]
    for whole, *shares in zip(batches(data), *parts, strict=True):
        assert torch.equal(whole.images, torch.cat([share.images for share in shares]))
        per_rank = 4 // world
        joined = torch.cat(
            [s.targets + torch.tensor([rank * per_rank, 0, 0, 0, 0, 0]) for rank, s in enumerate(shares)]
        )
        assert torch.equal(whole.targets, joined)


def test_loader_processes_give_the_batches_of_the_thread(data):
    assert_equal(batches(data, workers=2, multi_scale=True), batches(data, multi_scale=True))


def test_starting_inside_an_epoch_gives_its_remaining_batches(data):
    assert_equal(batches(data, batch=2, start_step=3), batches(data, batch=2)[3:])
    assert len(train_batches(data, HYP, size=64, batch=2, seed=1, epoch=2, start_step=5)) == 0
    assert batches(data, batch=2, start_step=5) == []


def test_repeated_images_are_drawn_again_on_any_rank_and_after_any_start(data):
    """Image 0 three times and image 1 one and a half times: 12.5 samples are three batches of four."""
    factors = np.full(10, ONE)
    factors[:2] = 3 * ONE, 3 * ONE // 2
    rare = replace(data, repeats=Repeats(factors))
    parts = [batches(rare, rank=rank, world=2) for rank in range(2)]
    whole = batches(rare, workers=1)
    assert len(whole) == 3
    for one, *shares in zip(whole, *parts, strict=True):
        assert torch.equal(one.images, torch.cat([share.images for share in shares]))
    assert_equal(batches(rare, start_step=1), whole[1:])
    single = {"hyp": Hyperparameters(mosaic=0), "size": 64, "batch": 4, "seed": 1, "epoch": 2}
    drawn = [i for step in train_batches(rare, **single).indices for i in step]
    images = torch.cat([batch.images for batch in train_batches(rare, **single)])
    of_first = images[[i % 10 == 0 for i in drawn]]
    assert len(of_first) >= 2  # one of 13 may be left out
    assert len(of_first.flatten(1).unique(dim=0)) == len(of_first)  # with draws of their own


def test_a_small_dataset_fills_a_batch(data):
    (batch,) = batches(data.subset(3), batch=8)
    assert batch.images.shape[0] == 8
    assert len({image.numpy().tobytes() for image in batch.images}) == 8  # repeats have new draws


def test_multi_scale_batches_have_one_size_on_all_ranks(data):
    sizes = [[b.images.shape[-1] for b in batches(data, multi_scale=True, rank=r, world=2)] for r in range(2)]
    assert sizes[0] == sizes[1]


@given(st.integers(1, 40), st.sampled_from([32, 64]), st.integers(0, 2**62), st.integers(0, 1000))
def test_multi_scale_sizes_are_whole_strides_within_half(strides, stride, seed, step):
    size = multi_scale_size(strides * stride, stride, seed, 0, step)
    assert size % stride == 0
    assert max(strides / 2, 1) <= size / stride <= strides * 1.5


def test_multi_scale_reaches_every_size():
    assert {multi_scale_size(128, 32, 0, 0, step) for step in range(200)} == {64, 96, 128, 160, 192}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"batch": 5, "world": 2}, "batch 5 cannot be split evenly among 2 workers"),
        ({"size": 96, "stride": 64}, "training size 96 is not a multiple .* 64"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(data, changes, problem):
    with pytest.raises(UserError, match=problem):
        batches(data, **changes)


def test_an_empty_dataset_is_refused(data):
    with pytest.raises(UserError, match="no images to train on"):
        batches(data.subset(0))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_ends_loading_with_its_own_line(tmp_path, workers):
    folder = write_split(tmp_path, [(40, 40)] * 2)
    (folder / "images" / "train" / "1.png").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"1\.png: cannot be decoded") as caught:
        batches(load_split(folder, "train"), batch=1, workers=workers)
    assert "\n" not in str(caught.value)


def test_an_abandoned_iterator_ends_its_thread(data):
    before = set(threading.enumerate())
    iterator = iter(train_batches(data, HYP, size=64, batch=1, seed=0, epoch=0))
    next(iterator)
    (loading,) = set(threading.enumerate()) - before
    del iterator
    gc.collect()
    join(loading)


def test_loading_continues_while_a_batch_is_used(data, monkeypatch):
    loaded = []
    wanted = train_batches(data, HYP, size=64, batch=1, seed=0, epoch=0)
    load = type(wanted).load
    monkeypatch.setattr(type(wanted), "load", lambda self, step: loaded.append(step) or load(self, step))
    iterator = iter(wanted)
    next(iterator)
    until(lambda: len(loaded) >= 3, "three batches")
    assert loaded == [0, 1, 2]  # two ahead, and no more
    iterator.close()


def test_rectangular_evaluation_batches(data):
    """Longer sides become 64 px. Sorted by height / width the first two are 100 x 45 and 64 x 33: 29 and 33 px high, so
    the canvas is ceil(33 / 32 + 0.5) = 2 strides high and ceil(64 / 32 + 0.5) = 3 wide."""
    loaded = list(val_batches(data, size=64, batch=2))
    assert len(loaded) == len(val_batches(data, size=64, batch=2)) == 5
    assert sorted(i for batch in loaded for i in batch.indices) == list(range(10))
    assert loaded[0].indices == [2, 7]
    assert loaded[0].images.shape == (2, 3, 64, 96)
    ratios = [data.images[i].height / data.images[i].width for batch in loaded for i in batch.indices]
    assert ratios == sorted(ratios)


@pytest.mark.parametrize("rect", [True, False])
def test_evaluation_images_are_letterboxed(data, rect):
    for batch in val_batches(data, size=64, batch=3, rect=rect):
        height, width = batch.images.shape[2:]
        assert height % 32 == width % 32 == 0
        assert rect or (height, width) == (64, 64)
        for image, index, box in zip(batch.images, batch.indices, batch.letterboxes, strict=True):
            record = data.images[index]
            square, square_box = letterbox(data.load(index), (64, 64))
            assert (box.scale_x, box.scale_y) == (square_box.scale_x, square_box.scale_y)
            corners = np.array([0.0, 0, record.width, record.height])
            x1, y1, x2, y2 = box.to_canvas(corners).round().astype(int)
            sx1, sy1, sx2, sy2 = square_box.to_canvas(corners).round().astype(int)
            pixels = image.permute(1, 2, 0).numpy()
            np.testing.assert_array_equal(pixels[y1:y2, x1:x2], square[sy1:sy2, sx1:sx2])
            outside = np.ones((height, width), bool)
            outside[y1:y2, x1:x2] = False
            assert (pixels[outside] == 114).all()


def test_the_last_evaluation_batch_may_be_smaller_and_no_images_give_none(data):
    assert [len(batch.indices) for batch in val_batches(data, size=64, batch=4)] == [4, 4, 2]
    assert list(val_batches(data.subset(0), size=64, batch=4)) == []
