"""The configuration of a training: everything `fit` needs besides the data."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from yolo_core.device import pick_device
from yolo_core.evaluate.coco_metrics import Judge
from yolo_core.evaluate.suppression import Suppression
from yolo_core.hyperparameters import Hyperparameters
from yolo_core.losses.class_weights import ClassWeights
from yolo_core.models.spec import Anchors
from yolo_core.train.schedule import Phase

WITHOUT_EFFECT = (  # on the result
    "loader_workers",
    "checkpoint_every",
    "keep_checkpoints",
    "stall_limit_s",
    "checkpointing",
    "start_from",
    "judge",
)
# Hyperparameters of later versions: they enter the identity only where they differ from the default.
ADDED_HYPERPARAMETERS = ("paste_in", "cls_count_power", "obj_size_power", "simota_from")
LIMITS = ("patience", "max_minutes")  # decide where a training ends, and nothing until then
COCO_SUPPRESSION = Suppression(conf=0.001, iou=0.65, max_detections=300)  # as COCO results are evaluated


@dataclass(frozen=True)
class Evaluation:
    """How the average weights are scored on the validation split."""

    batch: int = 16
    """Images per forward pass of one worker."""
    suppression: Suppression = COCO_SUPPRESSION


@dataclass(frozen=True)
class TrainConfig:
    """Everything `fit` needs besides the data."""

    model: str
    """Name of a model of `yolo_core.models`."""
    phases: tuple[Phase, ...]
    """Hyperparameters until an epoch; the last phase ends the training."""
    size: int
    """Side of the training square in pixels."""
    batch: int
    """Images per step over all workers."""
    nominal_batch: int = 64
    """Images per update of the weights; smaller batches are accumulated."""
    seed: int = 0
    """Seed of weights, sampling and augmentation."""
    anchors: Anchors | None = None
    """Anchors in pixels at `size`; None for the published ones."""
    width: float = 1.0
    """Width multiplier: channels of every layer."""
    depth: float = 1.0
    """Depth multiplier: repeats of every block."""
    multi_scale: bool = False
    """Whether the size of the square varies from batch to batch."""
    sync_bn: bool = False
    """Whether BatchNorm takes its statistics over all workers."""
    checkpointing: bool = False
    """Whether activations are recomputed in the backward pass instead of kept."""
    compile: bool = False
    """Whether the model runs through torch.compile, where that works."""
    start_from: str = ""
    """Path of the detector whose weights the training starts from; "" for none."""
    start_digest: str = ""
    """SHA-256 (hex) of that file; "" for none."""
    head_rows: bool = False
    """Whether that detector has other classes than the data, so that its heads give the rows of the shared ones.

    Only for the identity: `fit` looks at the classes themselves. Such trainings used to start with fresh heads.
    """
    freeze: tuple[str, ...] = ()
    """Dotted names of the modules that keep their weights."""
    repeat_factor: float | None = None
    """Images of classes that fewer than this fraction of the images hold are repeated; None for no repeats."""
    class_weights: ClassWeights | None = None
    """Weights of the classes in the class loss, by name or "balanced"; None for equal ones."""
    ema_decay: float = 0.9999
    """Decay of the average weights, per update."""
    ema_tau: float = 2000.0
    """Updates over which that decay ramps up."""
    eval_every: int = 1
    """Epochs between evaluations; the last epoch is always evaluated."""
    patience: int | None = None
    """Epochs without a better fitness, within a phase, after which the training ends; None for no limit."""
    max_minutes: float | None = None
    """Minutes of training, evaluations and earlier processes included, after which it ends; None for no limit."""
    evaluation: Evaluation = Evaluation()
    """How the average weights are scored."""
    judge: Judge = "hotcoco"
    """The library that computes AP."""
    data: str = ""
    """Digest of the dataset: a checkpoint made with other data is refused."""
    device: str = "auto"
    """Device to train on; see `yolo_core.device.pick_device`."""
    precision: str = "auto"
    """Precision of autocast; see `yolo_core.device.autocast_dtype`."""
    loader_workers: int = 0
    """Processes that load images, per worker."""
    checkpoint_every: int = 1000
    """Steps between checkpoints; every epoch ends with one too."""
    keep_checkpoints: int = 2
    """How many of the newest checkpoints stay; each also holds the best average weights so far."""
    stall_limit_s: float | None = None
    """Seconds without a step, or a batch of an evaluation, after which the process ends; None for no limit."""

    def identity(self) -> dict[str, object]:
        """The part that determines the weights at each step, as JSON can hold it.

        Its digest names folders of checkpoints: keys and values stay, or checkpoints of earlier versions are lost.
        `limits` are not in it, so that a training continues with others.
        """
        values = dataclasses.asdict(self)
        for name in (*WITHOUT_EFFECT, *LIMITS):
            del values[name]
        for name in ("repeat_factor", "class_weights"):
            if values[name] is None:
                del values[name]
        if not self.head_rows:
            del values["head_rows"]
        for phase in values["phases"]:
            for name in ADDED_HYPERPARAMETERS:
                if phase["hyp"][name] == getattr(Hyperparameters, name):
                    del phase["hyp"][name]
        evaluation = {"batch": self.evaluation.batch, **dataclasses.asdict(self.evaluation.suppression)}
        return {**values, "evaluation": evaluation, "device": pick_device(self.device).type}

    @property
    def limits(self) -> dict[str, float]:
        """The limits that are set, by name."""
        return {name: value for name in LIMITS if (value := getattr(self, name)) is not None}
