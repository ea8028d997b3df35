"""Published figures outside any single `ModelSpec`: other sizes, devices, ablations and the papers' own arithmetic.

A model's figures at its native size are in its spec. Holds data, and reads the speeds from the specs.
"""

from dataclasses import dataclass

from yolo_core.models.zoo import get_spec, model_names

SCALED_YOLOV4 = "arXiv 2011.08036v2"
YOLOV7 = "arXiv 2207.02696v1"
V100 = "Tesla V100"


@dataclass(frozen=True)
class Speed:
    """A published speed. size: pixels; fps: images per second; how: runtime and precision, empty if not stated."""

    model: str
    size: int
    device: str
    fps: float
    batch: int = 1
    how: str = ""


TENSORRT_FP16 = "TensorRT, float16"
OTHER_SPEEDS = (
    Speed("yolov4-csp", 512, V100, 93),
    Speed("yolov4-tiny", 416, "Jetson Nano", 39, how=TENSORRT_FP16),
    Speed("yolov4-tiny", 416, "Jetson AGX Xavier", 290, how=TENSORRT_FP16),
    Speed("yolov4-tiny", 416, "Jetson AGX Xavier", 380, batch=4, how=TENSORRT_FP16),
    Speed("yolov4-tiny", 416, "RTX 2080 Ti", 773, how=TENSORRT_FP16),
    Speed("yolov4-tiny", 416, "RTX 2080 Ti", 1774, batch=4, how=TENSORRT_FP16),
)


def printed_speeds() -> list[Speed]:
    """All published speeds: those of the specs, at native size, and `OTHER_SPEEDS`."""
    return [_speed_of(name) for name in model_names() if get_spec(name).published.fps] + list(OTHER_SPEEDS)


def _speed_of(name: str) -> Speed:
    """Parses `fps_on`: the device, then optionally "batch N" or the runtime, comma-separated."""
    spec = get_spec(name)
    assert spec.published.fps is not None
    device, *rest = (spec.published.fps_on or "").split(", ")
    batch = next((int(part.removeprefix("batch ")) for part in rest if part.startswith("batch ")), 1)
    how = ", ".join(part for part in rest if not part.startswith("batch "))
    return Speed(name, spec.native_size, device, spec.published.fps, batch, how)


# Dense float16 peak from vendor data sheets, TFLOP/s. V100: the PCIe card, which the Scaled-YOLOv4 paper divides by.
PEAK_TFLOPS = {V100: 112, "Tesla T4": 65, "L4": 121, "A100": 312, "H100": 989, "H200": 989}


@dataclass(frozen=True)
class SizeOf:
    """Published size of a variant. params_m: millions; gflops: 2 x multiply-add; None if not stated."""

    what: str
    params_m: float | None = None
    gflops: float | None = None


CSP_512_GFLOPS = 77.0
# Training graph with auxiliary heads; yolov7 before folding; yolov7-d6 as deployed.
TRAINING_PARAMS_M = {"yolov7-w6": 82.3, "yolov7-e6": 111.9, "yolov7-e6e": 166.4}
UNFOLDED_PARAMS_M = {"yolov7": 37.6}
WITHOUT_AUXILIARY = {"yolov7-d6": SizeOf("yolov7-d6", 133.8, 701.7)}

# YOLOv7 paper, table 3: a base scaled in width, in depth, and in both at the ratio that its concatenations require.
COMPOUND_BASE = SizeOf("base", 47.0, 125.5)
COMPOUND_WIDTH = SizeOf("width x 1.25", 73.4, 195.5)
COMPOUND_DEPTH = SizeOf("depth x 2", 69.3, 187.6)
# Scaled in both it is yolov7-x: see its spec.
COMPOUND_AP = {"base": 51.7, "width x 1.25": 52.4, "depth x 2": 52.7, "both (yolov7-x)": 52.9}


@dataclass(frozen=True)
class Accuracy:
    """Published accuracy on COCO in percent, with its source: versions of the same paper differ."""

    what: str
    ap: float
    ap50: float | None = None
    ap75: float | None = None
    source: str = SCALED_YOLOV4


_FIRST = "arXiv 2011.08036v1"
OTHER_ACCURACY = (
    Accuracy("yolov4-csp, 512 px", 46.2, 64.8, 50.2),
    Accuracy("yolov4-p5, test-time augmentation", 52.9, 70.7, 58.3),
    Accuracy("yolov4-p6, test-time augmentation", 55.2, 72.9, 60.5),
    Accuracy("yolov4-p7, test-time augmentation", 56.0, 73.3, 61.4),
    Accuracy("yolov4-p5", 51.4, source=_FIRST),
    Accuracy("yolov4-p6", 54.3, source=_FIRST),
    Accuracy("yolov4-p7", 55.4, source=_FIRST),
    Accuracy("yolov4-p5, test-time augmentation", 52.5, source=_FIRST),
    Accuracy("yolov4-p6, test-time augmentation", 54.9, source=_FIRST),
    Accuracy("yolov4-p7, test-time augmentation", 55.8, source=_FIRST),
    Accuracy("yolov4-p5, 300 epochs", 50.5),
    Accuracy("yolov4-p6, 300 epochs", 53.4),
    Accuracy("yolov4-p7, 300 epochs", 54.6),
    Accuracy("yolov4-p5, 300 and 150 epochs", 51.7),
    Accuracy("yolov4-p6, 300 and 150 epochs", 54.4),
    Accuracy("yolov4-p7, 300 and 150 epochs", 55.3),
)

# Scaled-YOLOv4, tables 1 and 2 and section 3: per layer type, in units of w h b^2, and in percent.
LAYER_COEFFICIENT = {"ResNet": 17 / 16, "ResNeXt": 137 / 128, "Darknet": 5.0}
PARTIAL_COEFFICIENT = {"ResNet": 13 / 16, "ResNeXt": 73 / 128, "Darknet": 5 / 2}
CSP_SAVING_PERCENT = {"ResNet": 23.5, "ResNeXt": 46.7, "Darknet": 50.0}
CSP_BREAK_EVEN = {"ResNet": 3, "ResNeXt": 1.5, "Darknet": 0.3}
CSP_TRANSITIONS = 3 / 4  # multiply-adds of a stage, on top of its layers
CSP_STAGE_CONSTANT = 9 / 4 + 3 / 4  # of a stage with its downsampling, on top of 5 k / 2
PCB_THRESHOLD = 0.5  # of the base: the growth kg above which, per the text, PCB beats CSP
TINY_GROWTH, TINY_LAYERS = 0.5, 3  # of yolov4-tiny's blocks: g / b, and k
REPEATS = {  # residual blocks per stage
    "yolov4-csp": (1, 2, 8, 8, 4),
    "yolov4-p5": (1, 3, 15, 15, 7),
    "yolov4-p6": (1, 3, 15, 15, 7, 7),
    "yolov4-p7": (1, 3, 15, 15, 7, 7, 7),
}
WIDTH = {"yolov4-p5": 1.0, "yolov4-p6": 1.0, "yolov4-p7": 1.25}


@dataclass(frozen=True)
class Use:
    """Utilisation of a V100 at batch 1: measured images/s, images/s at peak, their ratio in percent."""

    fps: float
    ideal_fps: float
    percent: float


GPU_USE = {
    "yolov4-csp": Use(get_spec("yolov4-csp").published.fps or 0, 933, 7.5),
    "EfficientDet-D3": Use(36, 2240, 1.6),
}
GPU_USE_RATIO = 4.7
# Relative to EfficientDet at equal AP; EfficientDet's own speed is published for D3 only.
SPEED_RATIO = {"yolov4-csp / D3": 1.9, "yolov4-p5 / D5": 2.9, "yolov4-p6 / D7": 3.7}
