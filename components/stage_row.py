"""The types of the stage table's rows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

MODEL = "{model}"  # placeholder for the model's name in the paths of stages that run once per model

Run = Callable[..., Mapping[str, object]]


@dataclass(frozen=True)
class File:
    """A file within a result, tracked by DVC."""

    name: str
    """Path relative to the result."""
    role: Literal["outs", "metrics", "plots"] = "outs"
    """The list of `dvc.yaml` it belongs to."""
    axes: Mapping[str, str] = field(default_factory=dict)
    """How `dvc plots` draws it: x, y, title."""


@dataclass(frozen=True)
class Result:
    """What a stage writes, wherever it runs."""

    path: str
    """Default of `--out`; contains `{model}` where the stage runs once per model."""
    artifact: str
    """Name of the Kubeflow artifact."""
    type: Literal["Artifact", "Dataset", "Model"] = "Artifact"
    """Kubeflow type of the result."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Metadata of the artifact, besides the model."""
    files: tuple[File, ...] = ()
    """Files that DVC tracks one by one; empty: the whole path."""
    shown: str = ""
    """File within the result that is shown as Kubeflow's metrics and page; empty: the path itself."""
    confusion: str = ""
    """A confusion matrix within the result, for Kubeflow's own view of one."""
    persist: str = ""
    """Why DVC must not delete the result before the stage runs, nor restore it instead of running; empty: it may."""


@dataclass(frozen=True)
class Input:
    """What a stage reads from an earlier one."""

    stage: str
    """The stage that writes it. A stage that runs once reads per-model results as the folder of all models."""
    help: str
    """Help text of its option."""
    file: str = ""
    """Part of that stage's result; empty: all of it."""
    default: str = ""
    """What the stage uses, given None, if no path was given and the default one has no file; empty: it needs one."""


@dataclass(frozen=True)
class Option:
    """An option that is not a path of the table."""

    name: str
    type: type
    help: str
    default: object = None
    limits: Mapping[str, int] = field(default_factory=dict)
    """`min` and `max`."""
    sets: str = ""
    """The parameter that the option sets."""
    own_result: bool = False
    """Whether the result is no longer the model's own, so that `--out` must be given as well."""


@dataclass(frozen=True)
class Resources:
    """Cluster resources of a stage."""

    cpu: str
    memory: str
    """Memory, both request and limit."""
    shm: str | None = None
    """Memory-backed /dev/shm, for loader processes and NCCL; it counts as memory."""
    gpu: bool = False
    """Whether it uses a GPU, if the pipeline was compiled with GPUs."""
    retries: int = 0
    """Kubeflow's retries, which follow any failure: only for stages where a lost node costs hours."""


def dashed(name: str) -> str:
    """A name as the command line spells it."""
    return name.replace("_", "-")


@dataclass(frozen=True)
class Stage:
    """One stage."""

    name: str
    """Name of its module, DVC stage and parameter section."""
    summary: str
    """One line, for the help, DVC, Kubeflow and the table in the docs."""
    title: str
    """Heading of its page in Kubeflow; may contain `{model}`."""
    load: Callable[[], Run]
    """Imports the stage's module and returns its `run`."""
    result: Result
    params: tuple[str, ...]
    """Keys of params.yaml that determine the result: its own section and whatever else it reads."""
    resources: Resources | None
    """None: a node of the model it trains (pipelines/rayjob/sizes.py), or a RayJob."""
    inputs: Mapping[str, Input] = field(default_factory=dict)
    """Inputs by option name."""
    records: tuple[str, ...] = ()
    """Stages whose code and parameters it records, so that it depends on these too."""
    details: str = ""
    """More sentences for its help."""
    work: str = ""
    """What `--work` keeps; empty: the stage keeps nothing."""
    logs_epochs: bool = False
    """Whether its `run` takes a `log` (components/monitoring) and `sinks` (components/tracking), and its command
    --log-format, --tensorboard and --wandb."""
    options: tuple[Option, ...] = ()
    examples: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        """The stage's name on the command line and in Kubeflow."""
        return dashed(self.name)

    @property
    def modules(self) -> list[str]:
        """Its module, and those of the stages that it records."""
        return [f"components.stages.{name}" for name in (self.name, *self.records)]

    @property
    def trains(self) -> bool:
        """Whether it trains: it starts from `train.weights` and is sized by its model."""
        return self.resources is None

    @property
    def per_model(self) -> bool:
        """Whether the stage runs once per model."""
        return MODEL in self.result.path
