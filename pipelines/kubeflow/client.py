"""A Kubeflow Pipelines server, through the public `kfp.Client`: versions, runs and schedules, each made once.

Every request has a limit; one that fails in passing (5xx, a lost connection) is tried again, and what is to be made is
looked for first, so that a lost answer makes nothing twice.
"""

import contextlib
import hashlib
import io
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import kfp
import tenacity
import yaml
from kfp_server_api import ApiException
from urllib3.exceptions import HTTPError

from yolo_core.errors import TryAgain, UserError

LIMITS = (5, 60)  # seconds to connect and to read
PASSING = {409, 429, 500, 502, 503, 504}  # 409: someone makes the same at the same time; the next look finds it
PAGE = 100
IN_CLUSTER, KUBECONFIG = "KUBERNETES_SERVICE_HOST", Path("~/.kube/config")
ENDED = {"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"}


class _Client(kfp.Client):
    """The client with a limit on each request; kfp's own waits for ever, and five times for a server's health."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        rest = self._run_api.api_client.rest_client  # all its interfaces share it
        unlimited = rest.request

        def limited(*args: Any, **kwargs: Any) -> Any:
            return unlimited(*args, **{**kwargs, "_request_timeout": kwargs.get("_request_timeout") or LIMITS})

        rest.request = limited

    def get_kfp_healthz(self, sleep_duration: int = 5) -> Any:
        return self._healthz_api.healthz_service_get_healthz(_request_timeout=LIMITS)


@dataclass(frozen=True)
class Version:
    """A pipeline's version on the server. is_new: whether it was uploaded now."""

    pipeline_id: str
    version_id: str
    name: str
    is_new: bool


@dataclass(frozen=True)
class Graph:
    """A compiled pipeline. name: the pipeline's. digest: of its text. parameters: the names of those it takes."""

    path: Path
    name: str
    digest: str
    parameters: frozenset[str]

    @classmethod
    def read(cls, path: Path) -> "Graph":
        """Raises UserError for a file that is no compiled pipeline."""
        try:
            text = path.read_text(encoding="utf-8")
            spec = next(yaml.load_all(text, yaml.CSafeLoader))
            name = spec["pipelineInfo"]["name"]
            inputs = spec["root"].get("inputDefinitions", {}).get("parameters", {})
        except (OSError, ValueError, KeyError, TypeError, StopIteration, yaml.YAMLError):
            raise UserError(f"{path}: no compiled pipeline; make one with `scaled-yolov4 pipeline compile`") from None
        return cls(path, name, hashlib.sha256(text.encode()).hexdigest()[:16], frozenset(inputs))


class Kubeflow:
    """patience: seconds to go on trying while the server cannot be reached or answers 5xx; then TryAgain."""

    def __init__(self, host: str = "", namespace: str = "", token: str = "", *, patience: float = 15) -> None:
        """Connect. Without a host: as kfp does, by the pod's own account or by the kubeconfig.

        Raises UserError when nothing says where the server is or the token is refused, TryAgain when it is away.
        """
        if not host and not os.environ.get(IN_CLUSTER) and not KUBECONFIG.expanduser().exists():
            raise UserError("no Kubeflow server: give --host URL, or set KFP_ENDPOINT")
        if host and not host.startswith("http"):
            raise UserError(f"--host {host}: an address such as http://localhost:8080")
        self.patience, self.host = patience, host
        given = {"host": host, "existing_token": token, "namespace": namespace}
        self._client: _Client = self._call(_Client, **{name: value for name, value in given.items() if value})

    def version(self, graph: Graph) -> Version:
        """The version that is this graph, uploaded if the server has none of its name: they are named by content."""
        pipeline_id = self._call(self._client.get_pipeline_id, graph.name) or self._pipeline(graph.name)
        name = f"graph-{graph.digest}"
        found = self._version_id(pipeline_id, name)
        if found:
            return Version(pipeline_id, found, name, is_new=False)

        def upload() -> str:
            made: Any = self._client.upload_pipeline_version(str(graph.path), name, pipeline_id=pipeline_id)
            return made.pipeline_version_id

        made = self._made(lambda: self._version_id(pipeline_id, name), upload)
        return Version(pipeline_id, made, name, is_new=True)

    def experiment(self, name: str) -> str:
        """The id of the experiment, made if there is none of this name."""
        return self._call(self._client.create_experiment, name).experiment_id

    def existing_experiment(self, name: str) -> str:
        """Raises UserError where there is none of this name."""
        try:
            return self._call(self._client.get_experiment, experiment_name=name).experiment_id
        except ValueError:  # kfp's way to say so
            raise UserError(f"experiment {name}: there is none; nothing was submitted to it yet") from None

    def start(self, version: Version, experiment_id: str, name: str, parameters: dict[str, Any], account: str) -> str:
        """Start a run and return its id. Another run of the same name is another run."""
        before = {run.run_id for run in self._runs(experiment_id, name)}

        def ours() -> str | None:
            return next((run.run_id for run in self._runs(experiment_id, name) if run.run_id not in before), None)

        def start() -> str:
            run: Any = self._client.run_pipeline(
                experiment_id,
                name,
                params=parameters,
                pipeline_id=version.pipeline_id,
                version_id=version.version_id,
                service_account=account or None,
            )
            return run.run_id

        return self._made(ours, start)

    def run(self, run_id: str) -> Any:
        """A run with the details of its tasks. Raises UserError when there is none."""
        return self._call(self._client.get_run, run_id)

    def latest_runs(self, experiment_id: str, number: int) -> list[Any]:
        """Newest first."""
        answer = self._call(
            self._client.list_runs, experiment_id=experiment_id, page_size=number, sort_by="created_at desc"
        )
        return answer.runs or []

    def terminate(self, run_id: str) -> None:
        self._call(self._client.terminate_run, run_id)

    def schedule(
        self, name: str, cron: str, version: Version, experiment_id: str, parameters: dict[str, Any], account: str
    ) -> tuple[str, str]:
        """See to it that exactly one schedule of this name stands, as given; returns its id and what was done.

        It is enabled, starts one run at a time and does not make up for times that it missed. A schedule cannot be
        changed on the server: the new one is made before the old one goes, so that none is missed.
        """
        existing = self.schedules(experiment_id, name)
        known = {item.recurring_run_id for item in existing}

        def equal() -> list[Any]:
            listed = self.schedules(experiment_id, name)
            return [item for item in listed if _describes(item, cron, version, parameters, account)]

        def create() -> Any:
            return self._client.create_recurring_run(
                experiment_id,
                name,
                cron_expression=cron,
                max_concurrency=1,
                no_catchup=True,
                enabled=True,
                params=parameters,
                pipeline_id=version.pipeline_id,
                version_id=version.version_id,
                service_account=account or None,
            )

        kept = self._made(lambda: next(iter(equal()), None), create).recurring_run_id
        if kept in known:
            self._call(self._client.enable_recurring_run, kept)
        for other in known - {kept}:
            self.unschedule(other)
        return kept, "unchanged" if kept in known else "updated" if known else "created"

    def schedules(self, experiment_id: str, name: str = "") -> list[Any]:
        """All schedules of the experiment, or those of one name."""
        given = {"filter": _named(name)} if name else {}
        return self._pages(self._client.list_recurring_runs, "recurring_runs", experiment_id=experiment_id, **given)

    def unschedule(self, schedule_id: str) -> None:
        with contextlib.suppress(UserError):  # gone already: an answer that was lost
            self._call(self._client.delete_recurring_run, schedule_id)

    def link(self, run_id: str) -> str:
        return f"{self.host or '/pipeline'}/#/runs/details/{run_id}"

    def _pipeline(self, name: str) -> str:
        """A pipeline without versions: one uploaded whole has a first version that is not named by its content."""

        def create() -> str:
            pipelines: Any = vars(self._client)["pipelines"]  # the generated interface, which kfp adds by name
            models: Any = vars(self._client)["api_models"]
            pipeline = models.V2beta1Pipeline(name=name, display_name=name)
            return pipelines.pipeline_service_create_pipeline(pipeline).pipeline_id

        return self._made(lambda: self._client.get_pipeline_id(name), create)

    def _version_id(self, pipeline_id: str, name: str) -> str | None:
        found = self._pages(
            self._client.list_pipeline_versions, "pipeline_versions", pipeline_id=pipeline_id, filter=_named(name)
        )
        return next((version.pipeline_version_id for version in found if version.display_name == name), None)

    def _runs(self, experiment_id: str, name: str) -> list[Any]:
        return self._pages(self._client.list_runs, "runs", experiment_id=experiment_id, filter=_named(name))

    def _pages(self, listing: Callable[..., Any], field: str, **given: Any) -> list[Any]:
        items, token = [], ""
        while True:
            page = self._call(listing, page_token=token, page_size=PAGE, **given)
            items += getattr(page, field) or []
            token = page.next_page_token or ""
            if not token:
                return items

    def _made(self, find: Callable[[], Any], create: Callable[[], Any]) -> Any:
        """What `find` finds, else what `create` makes; looks again before each further try."""
        return self._call(lambda: find() or create())

    def _call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        trying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_passes),
            wait=tenacity.wait_exponential_jitter(initial=0.2, max=10, jitter=0.2),
            stop=tenacity.stop_after_delay(self.patience),
            reraise=True,
        )
        try:
            with _quiet():
                return trying(function, *args, **kwargs)
        except ApiException as error:
            raise self._explained(error) from None
        except (HTTPError, OSError) as error:
            raise TryAgain(f"Kubeflow at {self.host or 'the cluster'}: not reached ({_reason(error)})") from None

    def _explained(self, error: ApiException) -> UserError:
        where = f"Kubeflow at {self.host or 'the cluster'}: {error.status} {error.reason}"
        if error.status in PASSING:
            return TryAgain(f"{where} for {self.patience:g} s")
        if error.status in (401, 403):
            return UserError(f"{where}; give --token, or set KFP_EXISTING_TOKEN, to one that is valid here")
        return UserError(f"{where}: {_message(error)}")


def run_name(pipeline: str) -> str:
    """A name for a run that starts now."""
    return f"{pipeline} {datetime.now(UTC):%Y-%m-%d %H-%M-%S}"


def _describes(item: Any, cron: str, version: Version, parameters: dict[str, Any], account: str) -> bool:
    reference, schedule = item.pipeline_version_reference, item.trigger and item.trigger.cron_schedule
    return bool(
        reference
        and reference.pipeline_version_id == version.version_id
        and schedule
        and schedule.cron == cron
        and item.no_catchup
        and int(item.max_concurrency) == 1
        and (item.runtime_config.parameters or {}) == parameters
        and (item.service_account or "") in ("", account)
    )


def _named(name: str) -> str:
    """A filter of the API: what carries this name."""
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]})


def _passes(error: BaseException) -> bool:
    return isinstance(error, HTTPError | OSError) or (isinstance(error, ApiException) and error.status in PASSING)


def _message(error: ApiException) -> str:
    """The server's own words on one line."""
    body = error.body.decode(errors="replace") if isinstance(error.body, bytes) else str(error.body)
    try:
        content = json.loads(body)
        body = content.get("message") or content.get("error") or body
    except (ValueError, AttributeError):
        pass
    return " ".join(str(body).split())[:300]


def _reason(error: BaseException) -> str:
    """The innermost cause, on one line."""
    inner = getattr(error, "reason", None)
    return _reason(inner) if isinstance(inner, BaseException) else " ".join(str(error).split())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the client's own prints, warnings and log lines: whoever calls says what there is to say."""
    before = logging.root.manager.disable
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)
