"""Decoded images held in memory and on disk: built once, shared, complete or not at all, refused if they do not fit."""

import gc
import logging
import multiprocessing
import os
import resource
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from coco_folder import write_split
from processes import FORKS
from waiting import LIMIT_S, until

from yolo_core.data.cache import CacheSettings, RamCache
from yolo_core.data.coco import DetectionDataset, load_split
from yolo_core.data.loader import train_batches
from yolo_core.data.mosaic import training_sample
from yolo_core.errors import UserError
from yolo_core.hyperparameters import Hyperparameters

SIZES = [(80, 60), (60, 80), (64, 64), (48, 20)]
SPAWN = multiprocessing.get_context("spawn")  # for what is to write to the standard error of this process


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_split(tmp_path / "data", SIZES)


def opened(folder: Path, cache: Path, size: int = 64, **settings) -> DetectionDataset:
    """The split of `folder` with its cache opened in `cache`."""
    data = load_split(folder, "train", cache=CacheSettings("disk", **{"folder": cache, "content": "1", **settings}))
    data.open_cache(size)
    return data


def files(cache: Path) -> list[Path]:
    return sorted(path for path in cache.iterdir() if path.name != "lock")


def assert_same_pixels(data: DetectionDataset, size: int = 64) -> None:
    plain = load_split(data.annotation_path.parents[1], "train", cache=CacheSettings("none"))
    for index in range(len(plain)):
        np.testing.assert_array_equal(data.image(index, size), plain.image(index, size))


def test_images_come_from_the_file_once_it_is_built(folder, tmp_path):
    assert_same_pixels(opened(folder, tmp_path / "cache"))
    (built,) = files(tmp_path / "cache")
    expected = [opened(folder, tmp_path / "cache").image(i, 64).copy() for i in range(len(SIZES))]
    shutil.rmtree(folder / "images")
    again = opened(folder, tmp_path / "cache")
    for index, image in enumerate(expected):
        np.testing.assert_array_equal(again.image(index, 64), image)
    with pytest.raises(ValueError, match="read-only"):
        again.image(0, 64)[0] = 0
    with pytest.raises(UserError, match="no such image"):
        again.image(0, 32)  # another size is decoded
    assert files(tmp_path / "cache") == [built]


def test_what_determines_the_pixels_names_the_file(folder, tmp_path):
    cache = tmp_path / "cache"
    for changes in ({}, {"size": 32}, {"content": "2"}, {"content": ""}):
        opened(folder, cache, **changes)
    assert len(files(cache)) == 4
    os.utime(folder / "images" / "train" / "0.png", (1, 1))
    opened(folder, cache)  # a digest of the content was given: times do not matter
    assert len(files(cache)) == 4
    opened(folder, cache, content="")
    part = load_split(folder, "train", cache=CacheSettings("disk", folder=cache, content="1")).subset([2, 0])
    part.open_cache(64)
    assert len(files(cache)) == 6


@pytest.mark.parametrize("damage", ["truncated", "longer", "another file", "empty"])
def test_a_damaged_file_is_rebuilt_with_a_log_line(folder, tmp_path, caplog, damage):
    opened(folder, tmp_path / "cache")
    (path,) = files(tmp_path / "cache")
    content = path.read_bytes()
    bad = {"truncated": content[:-1], "longer": content + b"0", "another file": bytes(len(content)), "empty": b""}
    path.write_bytes(bad[damage])
    with caplog.at_level(logging.WARNING):
        assert_same_pixels(opened(folder, tmp_path / "cache"))
    assert path.read_bytes() == content
    assert all(str(path) in line and "rebuilding it" in line for line in caplog.messages)
    assert caplog.messages


@pytest.mark.parametrize("kind", ["disk", "ram"])
def test_images_beyond_the_limit_are_not_held_and_one_line_says_so(folder, tmp_path, caplog, kind):
    """At 64 px: 64 x 48, 48 x 64, 64 x 64, 64 x 27 (of 26.7), 3 bytes each: 9,216 + 9,216 + 12,288 + 5,184 and 128 of
    the header are 36,032; the last one is a whole number of 64 bytes."""
    for limit, held in ((36_031, False), (36_032, True)):
        caplog.clear()
        data = load_split(folder, "train", cache=CacheSettings(kind, limit, tmp_path / "cache", "1"))
        for index in (*range(len(SIZES)), *range(len(SIZES))):
            data.image(index, 64)
        assert (data.open_cache(64) is not None) == held
        assert len(caplog.messages) == (not held)
        assert held or "exceed the limit of" in caplog.messages[0]
    if kind == "disk":
        data = opened(folder, tmp_path / "cache", size=32, limit=36_100)  # existing files count
        assert data.open_cache(32) is None
        assert "earlier ones, which may be deleted" in caplog.messages[-1]
        assert len(files(tmp_path / "cache")) == 1


def test_a_full_disk_is_left_alone(tmp_path, caplog):
    """200,000 px square at full size: 112 GiB an image, more than the disk has."""
    data = load_split(write_split(tmp_path, [(8, 8)]), "train")
    huge = DetectionDataset(
        [type(data.images[0])(1, data.images[0].path, 200_000, 200_000)] * 4096, data.labels * 4096, [], [],
        data.annotation_path, CacheSettings("disk", 1 << 62, tmp_path / "cache", "1"),
    )  # fmt: skip
    assert huge.open_cache(200_000) is None
    assert "do not fit" in caplog.text
    assert len(caplog.messages) == 1
    assert files(tmp_path / "cache") == []


def _with_small_files(folder, cache):
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    data = opened(folder, cache)
    os._exit(0 if data.open_cache(64) is None and data.image(0, 64).shape == (48, 64, 3) else 1)


def test_a_file_that_cannot_be_written_means_no_cache(folder, tmp_path, capfd):
    """The system refuses files over 20,000 bytes, as on a full disk."""
    process = SPAWN.Process(target=_with_small_files, args=(folder, tmp_path / "cache"))
    process.start()
    process.join(LIMIT_S)
    assert process.exitcode == 0
    assert "cannot hold decoded images (File too large)" in capfd.readouterr().err
    assert files(tmp_path / "cache") == []


def test_a_broken_image_ends_building_with_its_own_line(folder, tmp_path):
    (folder / "images" / "train" / "1.png").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"1\.png: cannot be decoded"):
        opened(folder, tmp_path / "cache")
    assert files(tmp_path / "cache") == []


def _build(folder, cache, pipe, pause):
    """Open the cache, `pause` seconds per image; send the images that were decoded here."""
    data = load_split(folder, "train", cache=CacheSettings("disk", folder=cache, content="1"))
    load, decoded = data.load, []

    def slowly(index):
        decoded.append(index)
        time.sleep(pause)
        return load(index)

    data.load = slowly
    pipe.send("ready")
    pipe.recv()
    data.open_cache(64)
    pipe.send(sorted(decoded))


class Builder:
    """`_build` in a separate process that starts when told."""

    def __init__(self, folder: Path, cache: Path, pause: float):
        self.pipe, there = multiprocessing.Pipe()
        self.process = FORKS.Process(target=_build, args=(folder, cache, there, pause))
        self.process.start()
        assert self.pipe.recv() == "ready"


def test_of_two_builders_one_builds_and_both_use_it(folder, tmp_path):
    builders = [Builder(folder, tmp_path / "cache", pause=0.2) for _ in range(2)]
    for builder in builders:
        builder.pipe.send("go")
    decoded = [builder.pipe.recv() for builder in builders]
    for builder in builders:
        builder.process.join(LIMIT_S)
    assert sorted(decoded) == [[], [0, 1, 2, 3]]
    assert_same_pixels(opened(folder, tmp_path / "cache"))


def test_a_killed_builder_leaves_nothing_that_passes_for_complete(folder, tmp_path):
    cache = tmp_path / "cache"
    killed = Builder(folder, cache, pause=LIMIT_S)
    killed.pipe.send("go")
    until(lambda: cache.exists() and files(cache), "a file of the cache")
    os.kill(killed.process.pid, signal.SIGKILL)
    killed.process.join(LIMIT_S)
    (leftover,) = files(cache)
    assert leftover.name.startswith(".")
    assert_same_pixels(opened(folder, cache))
    (whole,) = files(cache)
    assert not whole.name.startswith(".")


def test_a_forked_process_fills_the_memory_of_its_parent():
    cache = RamCache([(2, 3, 3), (4, 4, 3)])
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    if (child := os.fork()) == 0:
        cache.put(1, image)
        os._exit(0)
    os.waitpid(child, 0)
    assert cache.get(0) is None
    np.testing.assert_array_equal(cache.get(1), image)


@pytest.mark.parametrize("changes", [{"workers": 2}, {"start_step": 1}, {"rank": 1, "world": 2}])
def test_batches_from_the_file_are_those_of_decoded_images(folder, tmp_path, changes):
    def targets_and_pixels(cache):
        data = load_split(folder, "train", cache=cache)
        batches = train_batches(data, Hyperparameters(), size=64, batch=2, seed=1, epoch=0, **changes)
        return [(b.images.numpy().tobytes(), b.targets.numpy().tobytes()) for b in batches]

    plain = targets_and_pixels(CacheSettings("none"))
    assert plain == targets_and_pixels(CacheSettings("disk", folder=tmp_path / "cache"))


def _rank(folder, cache, pipe):
    """Draw samples of every image; send the memory that this took (bytes, proportional share of shared pages)."""
    data = opened(folder, cache, size=1024)
    hyp = Hyperparameters(hsv_h=0, hsv_s=0, hsv_v=0)
    training_sample(data, hyp, 64, 0, 0, 0, 1024)  # what is loaded once, and buffers
    pipe.recv()
    before = _proportional_bytes()
    for index in range(len(data)):
        assert data.image(index, 1024).any()
        training_sample(data, hyp, 64, 0, 0, index, 1024)
    pipe.send("done")
    pipe.recv()  # while the others have their pages too
    pipe.send(_proportional_bytes() - before)


def _proportional_bytes() -> int:
    """Without programs and libraries, whose share changes when any other process that uses them comes or goes."""
    total, counts = 0, True
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0]:  # the head of a mapping: its addresses, and where there is one its file
            counts = not any(part in " ".join(words[5:]) for part in (".so", "/bin/"))
        elif words[0] == "Pss:" and counts:
            total += int(words[1]) * 1024
    return total


def test_two_ranks_hold_the_images_once(tmp_path):
    """40 images of 1024 x 768 x 3 bytes, 94 MB: two processes together take no more than 1.15 times what one takes."""
    folder = write_split(tmp_path / "data", [(1024, 768)] * 40)
    opened(folder, tmp_path / "cache", size=1024)
    taken = {}
    for ranks in (1, 2):
        pipes, processes = [], []
        for _ in range(ranks):
            here, there = multiprocessing.Pipe()
            pipes.append(here)
            processes.append(FORKS.Process(target=_rank, args=(folder, tmp_path / "cache", there)))
            processes[-1].start()
        for _ in range(2):  # all draw, then all measure
            for pipe in pipes:
                pipe.send("go")
            answers = [pipe.recv() for pipe in pipes]
        taken[ranks] = sum(answers)
        for process in processes:
            process.join(LIMIT_S)
    assert taken[1] > 80e6
    assert taken[2] < 1.15 * taken[1]


def _epochs(folder, settings, pipe):
    """Load twenty epochs; send memory and open files after five and after all."""
    data = load_split(folder, "train", cache=settings)

    def load(epochs):
        for epoch in epochs:
            for _ in range(8):
                list(train_batches(data, Hyperparameters(mixup=0.5), size=128, batch=4, seed=0, epoch=epoch))
        gc.collect()
        pipe.send((_proportional_bytes(), len(list(Path("/proc/self/fd").iterdir()))))

    load(range(5))
    load(range(5, 20))


@pytest.mark.parametrize("kind", ["disk", "ram"])
def test_twenty_epochs_take_no_more_memory_than_five(folder, tmp_path, kind):
    """120 batches of 197 kB would be 24 MB; pages that other processes stop sharing count too, so half is allowed."""
    here, there = multiprocessing.Pipe()
    process = FORKS.Process(target=_epochs, args=(folder, CacheSettings(kind, folder=tmp_path / "cache"), there))
    process.start()
    (memory, handles), (later_memory, later_handles) = here.recv(), here.recv()
    process.join(LIMIT_S)
    assert later_handles <= handles
    assert later_memory - memory < 12 << 20
