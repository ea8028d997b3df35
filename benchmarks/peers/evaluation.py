"""The original evaluation, `test.py`, called as its training calls it: with a model and a loader."""

import contextlib
import importlib
import io
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import yaml

from benchmarks import peers
from benchmarks.contender import Figures, Round
from benchmarks.evaluate import BATCH, CONF, IOU, MODEL, SIZE, THREADS, counted
from benchmarks.peers import torchvision_stand_in
from yolo_core.models.official_names_v7 import pytorch_names
from yolo_core.models.zoo import build_model


def yolov7(folder: str) -> Round:
    torchvision_stand_in.install()
    test, models, datasets = map(importlib.import_module, ("test", "models.yolo", "utils.datasets"))
    torch.set_num_threads(THREADS)
    setattr(np, "trapz", np.trapezoid)  # noqa: B010 - it was written for an older NumPy
    images, options = str(Path(folder) / "images/val"), SimpleNamespace(single_cls=False)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        config = yaml.safe_load((peers.require("yolov7") / "cfg/training" / f"{MODEL}.yaml").read_text())
        model = models.Model(config)
        ours = torch.load(Path(folder) / "weights.pt")
        names = pytorch_names(build_model(MODEL, 80))
        missing, _ = model.load_state_dict({names[name]: value for name, value in ours.items()}, strict=False)
        assert all("anchor" in name for name in missing), missing
        model = model.requires_grad_(False).fuse().eval()
        stride = max(int(model.stride.max()), 32)
        loader = datasets.create_dataloader(images, SIZE, BATCH, stride, options, pad=0.5, rect=True)[0]
    kept = counted(test, "non_max_suppression")

    def once() -> Figures:
        kept.clear()
        began = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            test.test(
                {"nc": 80, "val": images}, batch_size=BATCH, imgsz=SIZE, conf_thres=CONF, iou_thres=IOU, model=model,
                dataloader=loader, plots=False,
            )  # fmt: skip
        seconds = time.perf_counter() - began
        return {"images_per_second": len(loader.dataset) / seconds, "detections": sum(kept)}

    return once
