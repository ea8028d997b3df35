"""Everything learns together: 16 photographs, hardly augmented, are memorised."""

from pathlib import Path

import pytest

from components import parameter_file
from components.stages import prepare
from yolo_core.data.coco import load_split
from yolo_core.hyperparameters import Hyperparameters
from yolo_core.models import get_spec
from yolo_core.train import Phase, TrainConfig, fit

ROOT = Path(__file__).parents[2]
COCO128 = ROOT.parent / "shared" / "data" / "coco128"
SIZE = 416
# Small shifts are kept: evaluation pads the pictures differently, and a network that saw a single position fails there.
MILD = {"hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0, "translate": 0.1, "scale": 0.2, "flip_lr": 0.5, "mosaic": 0.0}


@pytest.mark.slow
@pytest.mark.skipif(not COCO128.exists(), reason="needs ../shared/data/coco128")
def test_sixteen_photographs_are_memorised(tmp_path: Path) -> None:
    changes = ["prepare.source=coco-dir", f"prepare.location={COCO128}"]
    prepare.run(parameter_file.load(ROOT / "params.yaml", changes), out=tmp_path / "data")
    photographs = load_split(tmp_path / "data", "train").subset(16)
    hyp = Hyperparameters(lrf=0.1, warmup_epochs=10, warmup_iterations=0, weight_decay=0.0, **MILD)
    spec = get_spec("yolov4-tiny")
    scale = SIZE / spec.native_size
    config = TrainConfig(
        "yolov4-tiny",
        (Phase(240, hyp),),
        size=SIZE,
        batch=4,
        nominal_batch=4,
        anchors=tuple(tuple((w * scale, h * scale) for w, h in level) for level in spec.anchors),
        ema_decay=0.98,
        ema_tau=20,
        eval_every=40,
        device="cpu",
    )
    result = fit(config, photographs, photographs)
    assert result.best["AP50"] > 0.9, result.rows[-1]
