"""`scaled-yolov4 init`: look at a dataset and this machine, propose parameters, and write a project."""

import re
from collections.abc import Callable
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
    data, start, machine = _data(request.data), _start(request.weights, progress), Machine.here()
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
        written.DVC_FILE: written.dvc_text(str(_folder(data)), _local(request.weights)),
        written.IGNORED: written.ignore_text(),
    }
    if not written.README.exists():
        texts[written.README] = written.readme_text(name, survey, report.duration(proposal.hours))
    return _write(texts, here, request.force, say, agreed)


def _prepare(request: Request, data: Path, prepared: Path, progress: Progress) -> list[Choice]:
    """Prepare the dataset; returns the choices that it depends on."""
    name = Choice(
        "project", request.name or _slug(Path.cwd().name), "names the MLflow experiment and registered models"
    )
    location = Choice("prepare.location", str(data), "")
    split_off = Choice("prepare.val_fraction", VAL_FRACTION, "there is no validation split")
    params = parameter_file.of_values(values([name, location, split_off]))
    prepare.run(params, out=prepared, work=WORK, progress=progress)
    has_split = "validation" not in read_json(prepared / MANIFEST)["source"]
    return [name, location] if has_split else [name, location, split_off]


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
