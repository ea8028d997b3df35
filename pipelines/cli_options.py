"""Groups of options that several `pipeline` commands share, and what they stand for."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from components.cli.options import Overrides, ParamsFile, typer
from components.stage_row import dashed
from components.workspace import PARAMS
from pipelines.graph.target import IMAGE, Target
from yolo_core.errors import UserError
from yolo_core.model_names import known

if TYPE_CHECKING:
    from pipelines.kubeflow.client import Kubeflow

Option = typer.Option


@contextmanager
def needing_kubeflow() -> Iterator[None]:
    """Around imports of Kubeflow's client: where it is not installed, one line says how to install it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name and error.name.partition(".")[0] in ("kfp", "kubernetes"):
            raise UserError("this needs Kubeflow's client; run: pip install 'scaled-yolov4[pipelines]'") from None
        raise


@dataclass(frozen=True)
class Server:
    """Options of every command that talks to the server; the variables are those of kfp and of its client."""

    host: Annotated[
        str,
        Option("--host", "--endpoint", envvar=["KFP_ENDPOINT", "KF_PIPELINES_ENDPOINT"], help="Address of the server."),
    ] = ""
    namespace: Annotated[str, Option(envvar="KFP_NAMESPACE", help="Your namespace, on a multi-user server.")] = ""
    token: Annotated[str, Option(envvar="KFP_EXISTING_TOKEN", help="Bearer token, if the server wants one.")] = ""

    def connect(self) -> "Kubeflow":
        with needing_kubeflow():
            from pipelines.kubeflow.client import Kubeflow
        return Kubeflow(self.host, self.namespace, self.token)


@dataclass(frozen=True)
class Compiled:
    """Options of every command that compiles the pipeline."""

    image: Annotated[str, Option(help="The project's image.")] = IMAGE
    gpus: Annotated[int, Option(min=0, help="GPUs of each step that can use one.")] = 0
    sized_for: Annotated[str, Option(help="Model that the training steps are sized for.")] = "yolov4-tiny"
    ray_jobs: Annotated[bool, Option("--ray-jobs", help="Train and evolve as RayJobs over many nodes.")] = False
    queue: Annotated[str, Option(help="Kueue queue of the RayJobs: all their nodes start, or none.")] = ""
    ray_account: Annotated[str, Option(help="Service account of the Ray pods.")] = ""
    node_selector: Annotated[
        list[str], Option(metavar="LABEL=VALUE", help="Label of the nodes for GPU work; repeatable.")
    ] = field(default_factory=list)

    @property
    def target(self) -> Target:
        labels = tuple(_label(text) for text in self.node_selector)
        return Target(
            self.image,
            self.gpus,
            _sized_for(self.sized_for),
            self.ray_jobs,
            self.queue,
            self.ray_account,
            node_selector=labels,
        )

    @property
    def given(self) -> str:
        """The options that the user set, as `--image and --gpus`."""
        set_ = [each.name for each in fields(self) if getattr(self, each.name) != getattr(Compiled(), each.name)]
        return " and ".join(f"--{dashed(name)}" for name in set_)


def _sized_for(model: str) -> str:
    try:
        return known(model)
    except UserError as error:
        raise UserError(f"--sized-for: {error}") from None


def _label(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise UserError(
            f"--node-selector {text}: expected LABEL=VALUE, such as node.kubernetes.io/instance-type=p4d.24xlarge"
        )
    return name, value


@dataclass(frozen=True)
class Given:
    """Options of every command that starts runs."""

    graph: Annotated[Path | None, Option(metavar="FILE", help="A compiled pipeline; default: compile it now.")] = None
    params: ParamsFile = PARAMS
    overrides: Overrides = field(default_factory=list)
    models: Annotated[list[str], Option("--model", help="Model to train; repeatable; default: the parameters'.")] = (
        field(default_factory=list)
    )
    mlflow_uri: Annotated[str, Option(help="MLflow server, as the cluster reaches it.")] = ""
    account: Annotated[str, Option(help="Service account of the run.")] = ""
    force: Annotated[bool, Option("--force", help="Train every model from scratch, even if nothing changed.")] = False

    def parameters(self) -> dict[str, object]:
        """The run's parameters: the parameter file as text and its overrides, checked before they are sent."""
        from components.parameter_file import load
        from pipelines.rayjob.sizes import job_size

        changes = [*self.overrides, *([f"models={json.dumps(self.models)}"] if self.models else [])]
        for model in load(self.params, changes).models:
            job_size(model)
        given = {
            "params_yaml": self.params.read_text(encoding="utf-8"),
            "overrides": list(self.overrides),
            "models": list(self.models),
            "mlflow_tracking_uri": self.mlflow_uri,
            "force": self.force,
        }
        return {name: value for name, value in given.items() if value}
