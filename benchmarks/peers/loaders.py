"""The peers' training datasets, indexed as their own loaders index them."""

import contextlib
import importlib
import io
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Protocol

import numpy as np

from benchmarks.contender import Round
from benchmarks.loader import FLIP, HYP, SPLIT, Sample, timed
from benchmarks.peers import torchvision_stand_in

STILL = {"degrees": 0.0, "shear": 0.0, "perspective": 0.0, "flipud": 0.0, "mixup": 0.0, "copy_paste": 0.0}


class Samples(Protocol):
    """A training dataset of a peer."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> object: ...


def ultralytics(folder: str) -> Round:
    torchvision_stand_in.install()
    cfg, dataset = (importlib.import_module(f"ultralytics.{name}") for name in ("cfg", "data.dataset"))
    names = dict(enumerate(map(str, range(80))))
    hyp = cfg.get_cfg(overrides={**HYP, **STILL, "fliplr": FLIP, "mosaic": 1.0, "task": "detect"})

    def make(size: int, cached: bool) -> Samples:
        return dataset.YOLODataset(
            img_path=str(Path(folder) / "images" / SPLIT), imgsz=size, cache="ram" if cached else None, augment=True,
            hyp=hyp, batch_size=16, data={"names": names, "channels": 3}, task="detect",
        )  # fmt: skip

    return _timed(make)


def yolov4_large(folder: str) -> Round:
    np.__dict__["int"] = int  # it was written for an older NumPy
    return _original(folder)


def yolov7(folder: str) -> Round:
    return _original(folder)


def _original(folder: str) -> Round:
    torchvision_stand_in.install()
    datasets = importlib.import_module("utils.datasets")
    hyp = {**HYP, **STILL, "fliplr": FLIP, "mosaic": 1.0, "mixup": 0.0, "paste_in": 0.0}

    def make(size: int, cached: bool) -> Samples:
        for labels in (Path(folder) / "labels").glob("*.cache"):
            labels.unlink()  # it was written before torch.load admitted only what it knows
        return datasets.LoadImagesAndLabels(
            str(Path(folder) / "images" / SPLIT), size, 16, augment=True, hyp=hyp, cache_images=cached
        )

    return _timed(make)


def yolox(folder: str) -> Round:
    torchvision_stand_in.install()
    _stand_in("loguru", logger=SimpleNamespace(**dict.fromkeys(("info", "warning", "error"), print)))
    _stand_in("tabulate", tabulate=None)
    data = importlib.import_module("yolox.data")

    def make(size: int, cached: bool) -> Samples:
        images = data.COCODataset(
            folder, f"instances_{SPLIT}.json", SPLIT, (size, size), cache=cached, cache_type="ram"
        )
        return data.MosaicDetection(
            images, (size, size), preproc=data.TrainTransform(max_labels=120, flip_prob=FLIP, hsv_prob=1.0),
            degrees=0.0, translate=HYP["translate"], mosaic_scale=(1 - HYP["scale"], 1 + HYP["scale"]), shear=0.0,
            enable_mixup=False,
        )  # fmt: skip

    return _timed(make)


def _stand_in(name: str, **attributes: object) -> None:
    """Replace a missing package that is imported but not used here."""
    try:
        importlib.import_module(name)
    except ImportError:
        sys.modules[name] = ModuleType(name)
        sys.modules[name].__dict__.update(attributes)


def _timed(make: Callable[[int, bool], Samples]) -> Round:
    def quietly(size: int, cached: bool) -> Sample:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            samples = make(size, cached)
        return lambda index: samples[index % len(samples)]

    return timed(quietly)
