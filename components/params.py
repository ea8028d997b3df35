"""Typed parameters: the schema of `params.yaml`, parsed once; invalid keys and values are rejected by name.

Every stage takes one `Params`. Units and meanings are documented in the comments of `params.yaml`.
"""

import hashlib
import json
import re
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from yolo_core.errors import UserError
from yolo_core.evaluate.suppression import Suppression
from yolo_core.hyperparameters import Hyperparameters, check
from yolo_core.model_names import known
from yolo_core.recipes import RECIPES, RecipeName

Size = Annotated[int, Field(ge=32, le=4096, multiple_of=32)]
Factor = Annotated[float, Field(gt=0, le=16)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Patience = Annotated[int, Field(ge=1, le=100_000)]
Minutes = Annotated[float, Field(gt=0, le=10_000_000)]


class Section(BaseModel):
    """A section of the parameter file: unknown keys are errors, values are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _known_model(name: str) -> str:
    try:
        return known(name)
    except UserError as error:
        raise ValueError(str(error)) from None


ModelName = Annotated[str, AfterValidator(_known_model)]


def _once(names: list[str]) -> list[str]:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name!r} stands twice; remove one of the two")
    return names


def _known_and_in_range(values: dict[str, float]) -> dict[str, float]:
    for name, value in values.items():
        try:
            check(name, value)
        except UserError as error:
            raise ValueError(str(error)) from None
    return values


# Hyperparameters by name; omitted ones keep the value of the model's recipe.
HypOverrides = Annotated[dict[str, float], AfterValidator(_known_and_in_range)]


def _class_weights(value: object) -> object:
    if value is None or value == "balanced":
        return value
    if not isinstance(value, dict):
        raise ValueError("expected null, balanced, or weights such as {person: 2.0}")
    for name, weight in value.items():
        if type(name) not in (str, int):  # YAML reads a class such as 3 as a number that is written the same way
            raise ValueError(f"the class {name!r} needs quotes around its name")
        if type(weight) not in (int, float) or not 0 < weight <= MAX_WEIGHT:
            raise ValueError(f"weight {weight!r} of the class {name}: expected a number above 0, up to {MAX_WEIGHT}")
    return {str(name): float(weight) for name, weight in value.items()}


MAX_WEIGHT = 1000
ClassWeights = Annotated[Literal["balanced"] | dict[str, float], BeforeValidator(_class_weights)]


class DigitsParams(Section):
    """The built-in dataset: handwritten digits pasted onto crops of photographs."""

    train_images: int = Field(ge=1, le=1_000_000)
    val_images: int = Field(ge=1, le=1_000_000)
    image_size: int = Field(ge=64, le=2048)


def _quoted(value: object) -> object:
    """Reject a revision such as 1.0 or 1234567, which YAML reads as a number and may write differently."""
    if isinstance(value, int | float):
        raise ValueError("""looks like a number; put quotes around it: '"1.0"'""")
    return value


def _with_a_group(pattern: str | None) -> str | None:
    if pattern is None:
        return None
    try:
        compiled = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"not a regular expression ({error})") from None
    if not compiled.groups:
        raise ValueError("its first group in parentheses names the group; for example '(video[0-9]+)_'")
    return pattern


def _class_names(value: object) -> object:
    if not isinstance(value, dict):
        raise ValueError("expected new names by name, such as {bird: robin, plane: null}")
    for name in value:
        if type(name) not in (str, int):
            raise ValueError(f"the class {name!r} needs quotes around its name")
    return {str(name): new if new is None else str(new) for name, new in value.items()}


ClassNames = Annotated[dict[str, str | None], BeforeValidator(_class_names)]


class MoreParams(Section):
    """Another source, whose images join those of `prepare.location`."""

    source: Literal["auto", "coco-dir", "yolo-dir", "voc-dir", "s3"] = "auto"
    location: str
    classes: ClassNames = {}


class PrepareParams(Section):
    source: Literal["digits", "auto", "coco-dir", "yolo-dir", "voc-dir", "coco2017", "s3", "dvc"]
    location: str | None = None
    path: str | None = None
    revision: Annotated[str | None, BeforeValidator(_quoted)] = None
    classes: ClassNames = {}
    more: list[MoreParams] = []
    val_fraction: float | None = Field(default=None, gt=0, lt=1)
    group_pattern: Annotated[str | None, AfterValidator(_with_a_group)] = None
    max_bad_fraction: float = Field(ge=0, le=1)
    digits: DigitsParams

    @model_validator(mode="after")
    def _groups_are_split(self) -> "PrepareParams":
        if self.group_pattern is not None and self.val_fraction is None:
            raise ValueError("group_pattern needs val_fraction, the fraction of images to split off")
        return self


class AnchorsParams(Section):
    kmeans_iterations: int = Field(ge=1, le=10_000)
    generations: int = Field(ge=0, le=1_000_000)
    mutation_probability: float = Field(gt=0, le=1)
    mutation_sigma: float = Field(gt=0, le=1)


class Halving(Section):
    """After these epochs a trial continues only if it ranks within the best fraction `keep` of the earlier trials."""

    epochs: list[Annotated[int, Field(ge=1, le=10_000)]] = Field(min_length=1)
    keep: float = Field(gt=0, lt=1)

    @model_validator(mode="after")
    def _ascending(self) -> "Halving":
        if any(later <= earlier for earlier, later in pairwise(self.epochs)):
            raise ValueError(f"epochs = {self.epochs} must ascend")
        return self


class Confirm(Section):
    """Before the best trial's values are adopted, it and the starting point are trained with `seeds` other seeds."""

    seeds: int = Field(default=3, ge=3, le=100)
    """Two cannot tell a gain from chance (`components/evolution/adoption.py`)."""
    epochs: Literal["trial"] | Annotated[int, Field(ge=1, le=100_000)] | None = "trial"
    """"trial": as a trial, on its images. A number: that many on all images. None: `train.epochs` on all images."""


def _always_confirmed(value: object) -> object:
    """None is the default: no trial is adopted on a single training."""
    return Confirm() if value is None else value


class EvolveParams(Section):
    model: ModelName
    trials: int = Field(ge=0, le=100_000)
    minutes: float = Field(gt=0, le=100_000)
    gpu_hours: float | None = Field(default=None, gt=0, le=1_000_000)
    concurrent: int = Field(ge=1, le=10_000)
    cpus_per_trial: float = Field(gt=0, le=1024)
    gpus_per_trial: float = Field(ge=0, le=64)
    epochs: int = Field(ge=1, le=10_000)
    train_images: int = Field(ge=1)
    val_images: int = Field(ge=1)
    parents: int = Field(ge=1, le=1000)
    mutation_probability: float = Field(gt=0, le=1)
    sigma: float = Field(gt=0, le=1)
    halving: Halving | None = None
    confirm: Annotated[Confirm, BeforeValidator(_always_confirmed)] = Confirm()

    @model_validator(mode="after")
    def _consistent(self) -> "EvolveParams":
        if self.halving and self.halving.epochs[-1] >= self.epochs:
            raise ValueError(f"halving.epochs must end before epochs = {self.epochs}")
        if self.gpu_hours is not None and not self.gpus_per_trial:
            raise ValueError("gpu_hours needs gpus_per_trial above 0")
        for name in ("cpus_per_trial", "gpus_per_trial"):
            if (value := getattr(self, name)) > 1 and value % 1:
                raise ValueError(f"{name} = {value:g}: expected a fraction of 1, or a whole number")
        return self


class SecondStage(Section):
    """Training continues up to epoch `epochs` with a new cosine schedule and other hyperparameters."""

    epochs: int = Field(ge=1, le=100_000)
    hyp: HypOverrides = {}


class TrainSettings(Section):
    """Settings that may differ between models."""

    size: Size
    width: Factor
    depth: Factor
    epochs: int = Field(ge=1, le=100_000)
    batch: int = Field(ge=1, le=65_536)
    nominal_batch: int | None = Field(default=None, ge=1, le=65_536)
    multi_scale: bool
    sync_bn: bool
    checkpointing: bool
    weights: str | None
    freeze: list[str]
    recipe: RecipeName = "published"
    hyp: HypOverrides
    second_stage: SecondStage | None
    repeat_factor: Fraction | None = None
    class_weights: ClassWeights | None = None
    patience: Patience | None = None
    max_minutes: Minutes | None = None

    @model_validator(mode="after")
    def _second_stage_goes_further(self) -> "TrainSettings":
        if self.second_stage and self.second_stage.epochs <= self.epochs:
            raise ValueError(f"second_stage.epochs must be more than epochs = {self.epochs}")
        return self


class ModelOverrides(Section):
    """Overrides of `TrainSettings` for one model."""

    size: Size | None = None
    width: Factor | None = None
    depth: Factor | None = None
    epochs: int | None = Field(default=None, ge=1, le=100_000)
    batch: int | None = Field(default=None, ge=1, le=65_536)
    nominal_batch: int | None = Field(default=None, ge=1, le=65_536)
    multi_scale: bool | None = None
    sync_bn: bool | None = None
    checkpointing: bool | None = None
    weights: str | None = None
    freeze: list[str] | None = None
    recipe: RecipeName | None = None
    hyp: HypOverrides | None = None
    second_stage: SecondStage | None = None
    repeat_factor: Fraction | None = None
    class_weights: ClassWeights | None = None
    patience: Patience | None = None
    max_minutes: Minutes | None = None


class Workers(Section):
    """The number of training workers: as many as the cluster has room for, within a range."""

    min: int = Field(ge=1, le=4096)
    max: int = Field(ge=1, le=4096)

    @model_validator(mode="after")
    def _ordered(self) -> "Workers":
        if self.min > self.max:
            raise ValueError(f"min = {self.min} must not be more than max = {self.max}")
        return self

    @property
    def vary(self) -> bool:
        return self.min < self.max


def _range(value: object) -> object:
    """Turn a plain number into a range."""
    if isinstance(value, int) and not isinstance(value, bool):
        return {"min": value, "max": value}
    if not isinstance(value, dict | Workers):
        raise ValueError("expected a number, or {min: NUMBER, max: NUMBER}")
    return value


class TrainParams(TrainSettings):
    workers: Annotated[Workers, BeforeValidator(_range)]
    gpus_per_worker: float = Field(ge=0, le=16)
    loader_workers: int = Field(ge=0, le=256)
    cache: Literal["disk", "ram", "none"]
    cache_gib: float = Field(gt=0, le=1_000_000)
    device: str = Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    amp: bool
    compile: bool
    eval_every: int = Field(ge=1)
    checkpoint_every: int = Field(ge=1)
    keep_checkpoints: int = Field(ge=1, le=1000)
    stall_minutes: float = Field(gt=0, le=100_000)
    ema_decay: float = Field(ge=0, lt=1)
    ema_tau: float | None = Field(default=None, gt=0)
    per_model: dict[ModelName, ModelOverrides] = {}


class TTAParams(Section):
    scales: list[Annotated[float, Field(gt=0, le=4)]]
    flips: list[Literal["none", "left-right"]]

    @model_validator(mode="after")
    def _one_flip_per_scale(self) -> "TTAParams":
        if len(self.scales) != len(self.flips) or not self.scales:
            raise ValueError(f"scales ({len(self.scales)}) and flips ({len(self.flips)}) must have the same length")
        return self


class TileParams(Section):
    size: int = Field(ge=1, le=100_000)
    overlap: float = Field(ge=0, lt=1)


class EvaluateParams(Section):
    batch: int = Field(ge=1, le=4096)
    conf: float = Field(ge=0, lt=1)
    iou: float = Field(gt=0, lt=1)
    max_detections: int = Field(ge=1, le=100_000)
    judge: Literal["hotcoco", "pycocotools"]
    tta: TTAParams
    tile: TileParams | None = None

    @property
    def suppression(self) -> Suppression:
        """NMS settings of the evaluation."""
        return Suppression(self.conf, self.iou, self.max_detections)


class ExportParams(Section):
    opset: int = Field(ge=17, le=20)
    tolerance: float = Field(gt=0, le=1)
    ap_tolerance: float = Field(ge=0, le=1)
    check_images: int = Field(ge=1)
    nms_conf: float = Field(ge=0, lt=1)
    openvino: list[Literal["fp32", "bf16", "int8"]]
    calibration_images: int = Field(ge=1)
    int8_ap_tolerance: float = Field(ge=0, le=1)
    tensorrt: list[Literal["fp32", "fp16"]]


class BenchmarkParams(Section):
    batches: list[Annotated[int, Field(ge=1, le=1024)]] = Field(min_length=1)
    warmup: int = Field(ge=0)
    runs: int = Field(ge=2)
    threads: int = Field(ge=0, le=1024)


class RegisterParams(Section):
    experiment: str | None = Field(default=None, min_length=1)


class PromoteParams(Section):
    """The promotion gate; the stage `promote` combines the values."""

    min_ap_gain: float = Field(ge=-1, le=1)
    max_latency_ratio: float = Field(gt=0)
    faster_ratio: float = Field(ge=0)
    max_ap_loss: float = Field(ge=0, le=1)
    confidence: float = Field(gt=0.5, lt=1)
    bootstrap_samples: int = Field(ge=100, le=1_000_000)
    champions: str | None = None


class RetrainParams(Section):
    """What to do after the data changed; the command `retrain` combines the values."""

    min_recall: float = Field(ge=0, le=1)
    fine_tune_from: float = Field(ge=0, le=1)
    class_shift: float = Field(ge=0, le=1)
    size_shift: float = Field(ge=0, le=1)
    scratch_from: float = Field(ge=0, le=1)
    fine_tune_epochs: float = Field(gt=0, le=1)
    price_per_hour: float = Field(ge=0)


class Params(Section):
    """All of `params.yaml`."""

    project: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    seed: int = Field(ge=0, lt=2**63)
    models: Annotated[list[ModelName], AfterValidator(_once)] = Field(min_length=1)
    prepare: PrepareParams
    anchors: AnchorsParams
    evolve: EvolveParams
    train: TrainParams
    evaluate: EvaluateParams
    export: ExportParams
    benchmark: BenchmarkParams
    register_: RegisterParams = Field(alias="register")
    promote: PromoteParams
    retrain: RetrainParams

    @property
    def experiment(self) -> str:
        """The MLflow experiment."""
        return self.register_.experiment or self.project

    def registered_name(self, model: str) -> str:
        """The name of a model in the MLflow registry."""
        return f"{self.project}-{model}"

    def train_settings(self, model: str) -> TrainSettings:
        """Training settings of one model: the common ones, overridden by its `per_model` entry."""
        common = self.train.model_dump(include=set(TrainSettings.model_fields))
        own = self.train.per_model.get(model, ModelOverrides()).model_dump(exclude_unset=True)
        hyp = {**common["hyp"], **own.get("hyp", {})}
        return TrainSettings.model_validate({**common, **own, "hyp": hyp})

    def document(self) -> dict[str, object]:
        """All parameters as plain values."""
        return self.model_dump(mode="json", by_alias=True)

    def digest(self, *sections: str) -> str:
        """SHA-256 (hex) of the given sections, by default of all parameters."""
        data = self.model_dump(mode="json", by_alias=True, include=set(sections) or None)
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def hyperparameters(published: Hyperparameters, settings: TrainSettings) -> Hyperparameters:
    """A model's published hyperparameters, changed by `train.recipe` and then by `train.hyp`."""
    return RECIPES[settings.recipe].hyperparameters(published).replace(**settings.hyp)
