"""`scaled-yolov4 init`: look at a dataset and this machine, propose parameters, and write a project."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from components import parameter_file
from components.files import MANIFEST, read_json
from components.project import report, written
from components.project.machine import Machine, Speed, measure
from components.project.proposal import Choice, Proposal, Start, propose, values
from components.project.survey import Survey
from components.stages import prepare
from components.storage.location import is_remote
from components.storage.start_weights import Source, local_weights
from components.training.configuration import refuse_published
from components.workspace import DATA, PARAMS, WORK
from yolo_core.errors import UserError
from yolo_core.models.weights import load_detector
from yolo_core.progress import Progress

VAL_FRACTION = 0.1


@dataclass(frozen=True)
class Request:
    """What the user wants."""

    data: Path
    """Folder of images and labels, or a data.yaml."""
    also: tuple[Path, ...]
    """Further ones."""
    classes: Mapping[str, str | None]
    """New names of classes; None: leave their boxes out."""
    name: str
    """Name of the project; empty: that of the folder."""
    weights: str
    """Detector to fine-tune: path or address; empty: none."""
    hours: float
    """How long the training should take."""
    force: bool
    """Whether files of a project that is here may be overwritten."""


def run(request: Request, *, say: Callable[[str], None], agreed: Callable[[], bool], progress: Progress) -> bool:
    """Propose a project in the working folder, and write it if `agreed`; whether it was written.

    say: shows a line. Raises UserError for data that cannot be used, or if a project is here and `force` is not set.
    """
    here = written.is_project()
    prepared = WORK / "init" if here else DATA
    data = [_data(path) for path in (request.data, *request.also)]
    start, machine = _start(request.weights, progress), Machine.here()
    basis = _prepare(request, data, prepared, progress)
    survey = Survey.of(prepared)
    for line in report.about(survey):
        say(line)
    for line in report.hints(survey, prepared, progress):
        say(f"warning: {line}")
    proposal = _proposal(survey, machine, start, request.hours, basis, prepared)
    for line in report.expected(proposal, machine, survey, start):
        say(line)
    name = str(basis[0].value)
    texts = {
        PARAMS: written.params_text([*basis, *proposal.choices]),
        written.DVC_FILE: written.dvc_text([str(_folder(path)) for path in data], _local(request.weights)),
        written.IGNORED: written.ignore_text(),
    }
    if not written.README.exists():
        texts[written.README] = written.readme_text(name, survey, report.duration(proposal.hours))
    return _write(texts, here, request.force, say, agreed)


def _prepare(request: Request, data: list[Path], prepared: Path, progress: Progress) -> list[Choice]:
    """Prepare the dataset; returns the choices that it depends on."""
    name = request.name or _slug(Path.cwd().name)
    choices = [
        Choice("project", name, "names the MLflow experiment and registered models"),
        Choice("prepare.location", str(data[0]), ""),
    ]
    if request.classes:
        choices.append(Choice("prepare.classes", dict(request.classes), ""))
    if more := [{"location": str(path)} for path in data[1:]]:
        choices.append(Choice("prepare.more", more, "each may have classes of its own, to rename before those above"))
    split_off = Choice("prepare.val_fraction", VAL_FRACTION, "there is no validation split")
    params = parameter_file.of_values(values([*choices, split_off]))
    prepare.run(params, out=prepared, work=WORK, progress=progress)
    has_split = "validation" not in read_json(prepared / MANIFEST)["source"]
    return choices if has_split else [*choices, split_off]


def _write(
    texts: dict[Path, str], here: bool, force: bool, say: Callable[[str], None], agreed: Callable[[], bool]
) -> bool:
    changes = written.changes(texts)
    for line in changes if here else texts[PARAMS].splitlines():
        say(line)
    if here and not changes:
        say("nothing to change")
        return False
    if here and not force:
        raise UserError("a project is here already; nothing was changed. --force makes the changes shown above")
    if not agreed():
        return False
    written.write(texts)
    return True


def _data(data: Path) -> Path:
    data = data.expanduser()
    if not data.exists():
        raise UserError(f"{data}: no such folder")
    if Path.cwd().is_relative_to(_folder(data).resolve()):
        raise UserError(f"{data}: is around this folder; run init in a folder of its own, outside of the data")
    return data


def _folder(data: Path) -> Path:
    """What DVC should watch: the folder, or that of a data.yaml."""
    return data.parent if data.is_file() else data


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._") or "detector"


def _local(weights: str) -> str | None:
    """The file that DVC should watch; None without one, or at an address."""
    place = Source.parse(weights).place
    return None if not place or is_remote(place) else place


def _start(weights: str, progress: Progress) -> Start | None:
    if not weights:
        return None
    refuse_published(f"--weights {weights}", weights, "MODEL")
    found = load_detector(local_weights(weights, progress))
    return Start(weights, found.model.spec.name, found.size, found.model.width, found.model.depth)


def _proposal(
    survey: Survey, machine: Machine, start: Start | None, hours: float, basis: list[Choice], data: Path
) -> Proposal:
    def measured(choices: list[Choice]) -> Speed:
        given = [*basis, *(choice for choice in choices if choice.key != "train.weights")]
        params = parameter_file.of_values(values(given))
        return measure(params, params.models[0], data)

    return propose(survey, machine, start, hours, measured)
