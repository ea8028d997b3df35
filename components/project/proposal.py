"""What `init` proposes for a dataset on a machine: the parameters that differ from the defaults, each with a reason."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from components.project.machine import Machine, NoRoom, Speed
from components.project.survey import Survey

SIZES = (320, 416, 512, 640)
SHOWN_PX = 12  # the side at which a small box should still be seen: more than a cell of the finest stride, 8
FEW_IMAGES = 2_000  # below, no large model
EPOCHS = (30, 300)  # at least and at most
SMALL_TRAINING = 1_000_000  # samples, images times epochs: below, the recipe `small`
BATCH = 16
SCRATCH_IMAGES = 5_000  # below, a training from random weights stays well behind a fine-tuned one
EVALUATED = 1.15  # the time of a training with its evaluations, relative to that of its steps
SECONDS_PER_HOUR = 3600


@dataclass(frozen=True)
class Choice:
    """A parameter and why it has this value."""

    key: str
    """Dotted, as in `train.size`."""
    value: Any
    reason: str


def values(choices: Iterable[Choice]) -> dict[str, Any]:
    """The values as nested sections."""
    found: dict[str, Any] = {}
    for choice in choices:
        *parents, last = choice.key.split(".")
        section = found
        for part in parents:
            section = section.setdefault(part, {})
        section[last] = choice.value
    return found


@dataclass(frozen=True)
class Start:
    """A detector to start from."""

    path: str
    """Path or address, as given."""
    model: str
    size: int
    width: float
    depth: float


@dataclass(frozen=True)
class Proposal:
    """All choices, and how long the training takes."""

    model: str
    choices: tuple[Choice, ...]
    speed: Speed
    hours: float


def propose(
    survey: Survey,
    machine: Machine,
    start: Start | None,
    hours: float,
    measured: Callable[[list[Choice]], Speed],
) -> Proposal:
    """Propose parameters for a training of about `hours`.

    measured: how fast one process trains with these choices on this machine; it raises NoRoom where memory is too
    small for the batch, which is then halved. Raises NoRoom if there is no room for one image.
    """
    model = _model(survey, machine, start)
    wanted = batch = _batch(survey)
    while True:
        choices = [
            Choice("models", [model.value], model.reason),
            _size(survey, machine, start),
            *_batches(survey, batch, wanted),
            *_devices(machine),
            *(_from(start) if start else ()),
        ]
        try:
            speed = measured(choices)
            break
        except NoRoom:
            if batch == 1:
                raise
            batch //= 2
    rate = speed.images_per_second * max(1, machine.gpus)
    epochs = _epochs(survey, rate, hours)
    seconds = epochs.value * survey.train_images / rate * EVALUATED
    choices += [epochs, *_recipe(survey, start, epochs.value)]
    return Proposal(model.value, tuple(choices), speed, seconds / SECONDS_PER_HOUR)


def _model(survey: Survey, machine: Machine, start: Start | None) -> Choice:
    if start:
        return Choice("model", start.model, f"that of {start.path}")
    if machine.device == "cpu":
        return Choice("model", "yolov4-tiny", "no GPU here: the model that trains fastest")
    if survey.train_images < FEW_IMAGES:
        return Choice("model", "yolov4-tiny", f"{survey.train_images} images are few for a larger model")
    return Choice("model", "yolov4-csp", f"{survey.train_images} images, on {machine.name}")


def _size(survey: Survey, machine: Machine, start: Start | None) -> Choice:
    """The smallest size at which small boxes are still seen; the CPU and the images themselves set a limit."""
    most = 416 if machine.device == "cpu" else 640
    own = math.ceil(survey.image_side / 32) * 32
    sizes = [size for size in SIZES if size <= most and size < own] + ([own] if own <= most else [])
    sizes = sizes or [SIZES[0]]
    enough = [size for size in sizes if survey.box_side * size >= SHOWN_PX]
    if start and start.size <= most and (start.size in enough or not enough):
        return Choice("train.size", start.size, "px; that of the weights")
    size = (enough or sizes[-1:])[0]
    return Choice("train.size", size, f"px; a tenth of the boxes is below {survey.box_side * size:.0f} px at this size")


def _batch(survey: Survey) -> int:
    """Images per batch, if memory suffices: a few batches in each epoch."""
    batch = BATCH
    while batch > 2 and survey.train_images < 4 * batch:
        batch //= 2
    return batch


def _batches(survey: Survey, batch: int, wanted: int) -> list[Choice]:
    reason = f"images; {2 * batch} need more memory than there is" if batch < wanted else "images"
    choices = [Choice("train.batch", batch, reason)] if batch != BATCH else []
    if wanted != BATCH:
        few = f"{survey.train_images} images: the weights are updated after each {wanted}"
        choices.append(Choice("train.nominal_batch", wanted, few))
    return choices


def _devices(machine: Machine) -> list[Choice]:
    if machine.gpus > 1:
        return [
            Choice("train.workers", machine.gpus, f"a process for each GPU ({machine.name})"),
            Choice("train.gpus_per_worker", 1, "GPU"),
            Choice("train.loader_workers", max(1, min(8, machine.cores // machine.gpus - 1)), "per training process"),
        ]
    if machine.gpus == 1:
        return [Choice("train.loader_workers", max(1, min(8, machine.cores - 1)), f"for {machine.cores} cores")]
    return [Choice("train.loader_workers", 0 if machine.cores <= 4 else 2, f"for {machine.cores} cores")]


def _from(start: Start) -> list[Choice]:
    own = {"width": start.width, "depth": start.depth}
    return [
        Choice("train.weights", start.path, "fine-tuned from it"),
        *(Choice(f"train.{key}", value, "that of the weights") for key, value in own.items() if value != 1),
    ]


def _epochs(survey: Survey, images_per_second: float, hours: float) -> Choice:
    each = survey.train_images / images_per_second * EVALUATED / SECONDS_PER_HOUR
    least, most = EPOCHS
    epochs = min(max(round(hours / each), least), most)
    limit = {least: f", at least {least}", most: f", at most {most}"}.get(epochs, "")
    return Choice("train.epochs", epochs, f"about {hours:g} h at {images_per_second:.1f} images/s{limit}")


def _recipe(survey: Survey, start: Start | None, epochs: int) -> list[Choice]:
    """The recipe for a training of this length; that of the papers, the default, needs many more images."""
    if start:
        return [Choice("train.recipe", "fine-tune", "a lower learning rate than from scratch")]
    seen = survey.train_images * epochs
    if seen >= SMALL_TRAINING:
        return []
    return [Choice("train.recipe", "small", f"{seen:,} samples are few for the published one")]
