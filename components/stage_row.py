"""What a row of the stage table says of one stage."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

MODEL = "{model}"  # stands for the model's name in the paths of stages that run once per model

Run = Callable[..., dict[str, Any]]


@dataclass(frozen=True)
class File:
    """A file of a result that DVC tracks."""

    name: str
    """Path below the result."""
    role: Literal["outs", "metrics", "plots"] = "outs"
    """The list of `dvc.yaml` it belongs to."""
    axes: Mapping[str, str] = field(default_factory=dict)
    """How `dvc plots` draws it: x, y, title."""


@dataclass(frozen=True)
class Result:
    """What a stage writes, in all places that run it."""

    path: str
    """Default of `--out`; contains `{model}` where the stage runs once per model."""
    artifact: str
    """Name of the Kubeflow artifact."""
    type: Literal["Artifact", "Dataset", "Model"] = "Artifact"
    """Kubeflow's type of it."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """What the artifact says of itself, besides the model."""
    files: tuple[File, ...] = ()
    """What DVC tracks one by one; empty: the whole path."""
    shown: str = ""
    """The file below the result that becomes Kubeflow's metrics and page; empty: the path itself."""
    confusion: str = ""
    """A confusion matrix below the result, for Kubeflow's own view of one."""
    persist: str = ""
    """Why DVC must not delete the result before the stage runs, nor restore it in place of a run; empty: it may."""


@dataclass(frozen=True)
class Input:
    """What a stage reads of an earlier one."""

    stage: str
    """The stage that makes it. Read once for all models, a result per model is read as the folder of all of them."""
    help: str
    """Help of its option."""
    file: str = ""
    """The part of that stage's result; empty: all of it."""


@dataclass(frozen=True)
class Option:
    """An option besides the paths."""

    name: str
    type: type
    help: str
    default: object = None
    limits: Mapping[str, int] = field(default_factory=dict)
    """min and max."""
    sets: str = ""
    """The parameter that the option sets."""
    own_result: bool = False
    """Whether the result is no longer the model's own, so that `--out` must be given as well."""


@dataclass(frozen=True)
class Resources:
    """What a stage may use of a cluster."""

    cpu: str
    memory: str
    """Request and limit."""
    shm: str | None = None
    """Memory-backed /dev/shm, for loader processes and NCCL; it counts as memory."""
    gpu: bool = False
    """Whether it uses a GPU where the pipeline was compiled with some."""
    retries: int = 0
    """Kubeflow's retries, which follow any failure: only where a lost node costs hours."""


@dataclass(frozen=True)
class Stage:
    """One stage."""

    name: str
    """Of its module, of DVC's stage and of its parameters."""
    summary: str
    """One line: help, DVC's description, Kubeflow's description, the table in the docs."""
    title: str
    """Heading of its page in Kubeflow; may contain `{model}`."""
    load: Callable[[], Run]
    """Imports the stage's module and returns its `run`."""
    result: Result
    params: tuple[str, ...]
    """Keys of params.yaml that decide the result: its own section and what else it reads."""
    resources: Resources | None
    """None: a node of the model it trains (pipelines/rayjob/sizes.py), or a RayJob."""
    inputs: Mapping[str, Input] = field(default_factory=dict)
    """By option name."""
    details: str = ""
    """Further sentences of its help."""
    work: str = ""
    """What `--work` keeps; empty: the stage keeps nothing."""
    options: tuple[Option, ...] = ()
    examples: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        """Its name on the command line and in Kubeflow."""
        return self.name.replace("_", "-")

    @property
    def per_model(self) -> bool:
        """Whether the stage runs once per model."""
        return MODEL in self.result.path
