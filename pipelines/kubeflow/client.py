"""Versions, runs and schedules of a pipeline on a Kubeflow server, through the public `kfp.Client`.

What is to be created is looked for first, so that a lost answer creates nothing twice.
"""

import contextlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from kfp_server_api import V2beta1RecurringRun, V2beta1Run

from pipelines.kubeflow.connection import Connection
from pipelines.kubeflow.graph import Graph
from yolo_core.errors import UserError, without_credentials

PAGE_SIZE = 100
ENDED = {"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"}

T = TypeVar("T")


@dataclass(frozen=True)
class Version:
    """A pipeline's version on the server."""

    pipeline_id: str
    version_id: str
    name: str
    is_new: bool
    """Whether it was uploaded now."""


class Kubeflow(Connection):
    def version(self, graph: Graph) -> Version:
        """The version with this graph's content, uploaded if it is missing; versions are named by content."""
        pipeline_id = self._call(self._client.get_pipeline_id, graph.name) or self._create_pipeline(graph.name)
        name = f"graph-{graph.digest}"
        found = self._version_id(pipeline_id, name)
        if found:
            return Version(pipeline_id, found, name, is_new=False)

        def upload() -> str:
            uploaded = self._client.upload_pipeline_version(str(graph.path), name, pipeline_id=pipeline_id)
            return _set(uploaded.pipeline_version_id)

        version_id = self._find_or_create(lambda: self._version_id(pipeline_id, name), upload)
        return Version(pipeline_id, version_id, name, is_new=True)

    def experiment(self, name: str) -> str:
        """The id of the experiment, created if it is missing."""
        return _set(self._call(self._client.create_experiment, name).experiment_id)

    def existing_experiment(self, name: str) -> str:
        """Id of the experiment. Raises UserError if there is none."""
        try:
            return _set(self._call(self._client.get_experiment, experiment_name=name).experiment_id)
        except ValueError:  # kfp raises this for a missing one
            raise UserError(f"experiment {name}: does not exist; nothing was submitted to it yet") from None

    def start(
        self, version: Version, experiment_id: str, name: str, parameters: dict[str, object], account: str
    ) -> str:
        """Start a run and return its id. Earlier runs may have the same name."""
        before = {run.run_id for run in self._runs(experiment_id, name)}

        def started() -> str | None:
            return next((run.run_id for run in self._runs(experiment_id, name) if run.run_id not in before), None)

        def start() -> str:
            run = self._client.run_pipeline(
                experiment_id,
                name,
                params=parameters,
                pipeline_id=version.pipeline_id,
                version_id=version.version_id,
                service_account=account or None,
            )
            return _set(run.run_id)

        return self._find_or_create(started, start)

    def run(self, run_id: str) -> V2beta1Run:
        """A run with the details of its tasks. Raises UserError if there is none."""
        return self._call(self._client.get_run, run_id)

    def latest_runs(self, experiment_id: str, number: int) -> list[V2beta1Run]:
        """The latest runs, newest first."""
        answer = self._call(
            self._client.list_runs, experiment_id=experiment_id, page_size=number, sort_by="created_at desc"
        )
        return answer.runs or []

    def terminate(self, run_id: str) -> None:
        self._call(self._client.terminate_run, run_id)

    def schedule(
        self, name: str, cron: str, version: Version, experiment_id: str, parameters: dict[str, object], account: str
    ) -> tuple[str, str]:
        """Ensure that exactly one schedule of this name exists, as given; return its id and what was done.

        It is enabled, starts one run at a time and does not catch up on missed times. The server cannot change a
        schedule: the new one is created before the old one is deleted, so that no time is missed.
        """
        known = {_set(item.recurring_run_id) for item in self.schedules(experiment_id, name)}

        def equal() -> str | None:
            listed = self.schedules(experiment_id, name)
            same = (item.recurring_run_id for item in listed if _is_equal(item, cron, version, parameters, account))
            return next(same, None)

        def create() -> str:
            created = self._client.create_recurring_run(
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
            return _set(created.recurring_run_id)

        kept = self._find_or_create(equal, create)
        if kept in known:
            self._call(self._client.enable_recurring_run, kept)
        for other in known - {kept}:
            self.unschedule(other)
        return kept, "unchanged" if kept in known else "updated" if known else "created"

    def schedules(self, experiment_id: str, name: str = "") -> list[V2beta1RecurringRun]:
        """All schedules of the experiment, or those of one name."""
        wanted = _named(name) if name else None
        return self._all_pages(
            lambda token: self._client.list_recurring_runs(
                token, PAGE_SIZE, experiment_id=experiment_id, filter=wanted
            ),
            lambda page: page.recurring_runs,
        )

    def unschedule(self, schedule_id: str | None) -> None:
        """schedule_id: `recurring_run_id` of a schedule, which its model declares as optional."""
        with contextlib.suppress(UserError):  # deleted already, the answer was lost
            self._call(self._client.delete_recurring_run, _set(schedule_id))

    def link(self, run_id: str) -> str:
        return f"{without_credentials(self.host) or '/pipeline'}/#/runs/details/{run_id}"

    def _create_pipeline(self, name: str) -> str:
        """Create it without versions: uploading a whole pipeline would name its first version otherwise."""
        return self._find_or_create(
            lambda: self._client.get_pipeline_id(name),
            lambda: _set(self._client.create_empty_pipeline(name).pipeline_id),
        )

    def _version_id(self, pipeline_id: str, name: str) -> str | None:
        found = self._all_pages(
            lambda token: self._client.list_pipeline_versions(pipeline_id, token, PAGE_SIZE, filter=_named(name)),
            lambda page: page.pipeline_versions,
        )
        return next((version.pipeline_version_id for version in found if version.display_name == name), None)

    def _runs(self, experiment_id: str, name: str) -> list[V2beta1Run]:
        return self._all_pages(
            lambda token: self._client.list_runs(token, PAGE_SIZE, experiment_id=experiment_id, filter=_named(name)),
            lambda page: page.runs,
        )


def run_name(pipeline: str) -> str:
    """A name for a run that starts now."""
    return f"{pipeline} {datetime.now(UTC):%Y-%m-%d %H-%M-%S}"


def _set(field: T | None) -> T:
    """A field that the server always sets; the generated models declare every field as optional."""
    assert field is not None
    return field


def _is_equal(
    item: V2beta1RecurringRun, cron: str, version: Version, parameters: dict[str, object], account: str
) -> bool:
    reference, schedule = item.pipeline_version_reference, item.trigger and item.trigger.cron_schedule
    return bool(
        reference
        and reference.pipeline_version_id == version.version_id
        and schedule
        and schedule.cron == cron
        and item.no_catchup
        and int(_set(item.max_concurrency)) == 1
        and (_set(item.runtime_config).parameters or {}) == parameters
        and (item.service_account or "") in ("", account)
    )


def _named(name: str) -> str:
    """The API's filter for this name."""
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]})
