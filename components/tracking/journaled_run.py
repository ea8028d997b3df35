"""A stage's MLflow run that is written through a journal, so that MLflow may be down before, during and after.

What a stage records goes to a file of the outbox first (`components.tracking.journal`) and from there, in order and
in a thread, to MLflow. `scaled-yolov4 sync` delivers what is left at the end.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import uuid
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from components.params import Params
from components.tracking import moved
from components.tracking.connection import connect, experiment_id, is_refusal, reaching, shown_uri
from components.tracking.journal import Busy, DeliveryThread, Entry, Journal, journals_in, open_journal, peek
from components.tracking.runs import (
    MODEL_TAG,
    PARENT_TAG,
    PIPELINE_TAG,
    RECORD_TAG,
    STAGE_TAG,
    Recorder,
    deliver,
    find_or_create,
    flatten,
    now_ms,
    pipeline_id,
    root_run,
    source_tags,
)
from components.tracking.sinks import NO_SINKS, Sinks
from components.workspace import outbox
from yolo_core.errors import TryAgain, UserError
from yolo_core.progress import Progress

if TYPE_CHECKING:
    from mlflow import MlflowClient

# How long to wait for MLflow
END_TIMEOUT_S = 30.0  # after the work
FAILED_TIMEOUT_S = 3.0  # after work that failed
SYNC_TIMEOUT_S = 60.0

log = logging.getLogger(__name__)


class JournaledRun(Recorder):
    """A run that is written through a journal.

    Metrics that the journal holds already are not recorded again: a stage that resumes after a kill repeats some.
    """

    def __init__(
        self, journal: Journal, thread: DeliveryThread, run_id: str | None, also: Callable[[Entry], None]
    ) -> None:
        super().__init__(self._append)
        self.run_id = run_id  # None when MLflow was down at the start
        self._journal, self._thread, self._also = journal, thread, also
        self._recorded: dict[tuple[str, int], float] = {}
        for entry in journal.history:
            self._note(entry)

    def _append(self, entry: Entry) -> None:
        if entry["op"] == "metrics":
            new = [values for values in entry["metrics"] if self._recorded.get((values[0], values[3])) != values[1]]
            if not new:
                return
            entry = {**entry, "metrics": new}
            self._note(entry)
        self._journal.append(entry)
        self._thread.notify()
        self._also(entry)

    def _note(self, entry: Entry) -> None:
        if entry["op"] == "metrics":
            self._recorded |= {(name, step): value for name, value, _, step in entry["metrics"]}


@contextlib.contextmanager
def journaled_run(
    params: Params, data: Path, stage: str, model: str, sinks: Sinks = NO_SINKS
) -> Iterator[JournaledRun]:
    """The same run as from `stage_run`, written through a journal: MLflow may be down before, during and after.

    What could not be delivered stays in the outbox (see `check_delivered`, `deliver_all`).
    sinks: who else receives the metrics.
    Raises UserError when MLflow refuses access at the start.
    """
    header = {
        "tracking_uri": shown_uri(),
        "experiment": params.experiment,
        "pipeline": pipeline_id(params, data),
        "stage": stage,
        "model": model,
        "record": uuid.uuid4().hex,
        "began": now_ms(),
        "source": source_tags(),
    }
    with open_journal(_path(header), header) as journal:
        writer = _RunWriter(journal)
        run_id = _opened_if_reachable(writer, journal.path)
        thread = DeliveryThread(journal, writer, is_refusal)
        with sinks.opened(journal, flatten(params.document())) as also:
            record = JournaledRun(journal, thread, run_id, also)
            try:
                yield record
            except BaseException:
                record.close("FAILED")
                thread.finish(FAILED_TIMEOUT_S)
                raise
            record.close("FINISHED")
        if thread.finish(END_TIMEOUT_S):
            journal.remove()


def _opened_if_reachable(writer: _RunWriter, path: Path) -> str | None:
    """The id of the run; None, with a warning, while MLflow is down."""
    try:
        with reaching():
            return writer.open()
    except Exception as error:
        if isinstance(error, UserError) and not isinstance(error, TryAgain):
            raise
        log.warning("%s; the stage continues, its records are kept in %s", error, path)
        return None


def waiting(stage: str, model: str) -> dict[Path, int]:
    """The journals of a stage and model that hold undelivered records, and how many."""
    summaries = {path: peek(path) for path in journals_in(_folder())}
    return {
        path: count
        for path, (header, count) in summaries.items()
        if count and (header.get("stage"), header.get("model")) == (stage, model)
    }


def check_delivered(stage: str, model: str) -> None:
    """Raise TryAgain when records of this stage and model wait for MLflow."""
    for path, count in waiting(stage, model).items():
        raise TryAgain(
            f"MLflow at {shown_uri()} did not accept {count} records of {stage} {model}; they are kept in {path}: "
            "run `scaled-yolov4 sync` when it answers again"
        )


def deliver_all(progress: Progress) -> dict[Path, int]:
    """Deliver what waits in the journals that no running stage has open; returns the number of entries of each.

    Raises TryAgain at the first that MLflow does not accept, UserError for one recorded for another MLflow.
    """
    delivered = {}
    paths = [path for path in journals_in(_folder()) if peek(path)[1]]
    for path in progress(paths, "records"):
        try:
            with open_journal(path) as journal:
                delivered[path] = journal.waiting
                _deliver_journal(journal)
        except Busy:
            log.warning("%s: its stage is still running and will deliver it", path)
    return delivered


def _deliver_journal(journal: Journal) -> None:
    recorded_for = journal.header["tracking_uri"]
    if not moved.is_same_database(recorded_for, shown_uri()):
        raise UserError(
            f"{journal.path}: recorded for MLflow at {recorded_for}, not {shown_uri()}; set MLFLOW_TRACKING_URI"
        )
    thread = DeliveryThread(journal, _RunWriter(journal), is_refusal)
    if not thread.finish(SYNC_TIMEOUT_S):
        raise TryAgain(
            f"MLflow at {shown_uri()} is down, {journal.waiting} records stay in {journal.path}; {thread.error}"
        )
    if journal.last.get("status") == "FINISHED":
        journal.remove()


class _RunWriter:
    """Writes entries of a journal to its run, which it finds or creates when MLflow first answers."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._open: tuple[MlflowClient, str, str] | None = None  # with the ids of the run and of its root

    def open(self) -> str:
        """The id of the run; sets it and its root to RUNNING."""
        client = connect()
        state = self._journal.state
        if "run" not in state:
            state["run"], state["root"] = self._found(client)
            self._journal.save_state(**state)
        for run_id in (state["root"], state["run"]):
            client.update_run(run_id, status="RUNNING")
        self._open = client, state["run"], state["root"]
        return state["run"]

    def __call__(self, entries: list[Entry]) -> None:
        with reaching():
            client, run, root = self._opened()
            for entry in _joined(entries):
                deliver(client, run, entry)
                if entry["op"] == "end":
                    deliver(client, root, entry)
                    self._delete_duplicates(client, {run, root})

    def _opened(self) -> tuple[MlflowClient, str, str]:
        if self._open is None:
            try:
                self.open()
            except Exception as error:
                if is_refusal(error):  # of the run, not of the entries
                    raise TryAgain(f"MLflow at {shown_uri()}: {error}") from None
                raise
        assert self._open
        return self._open

    def _found(self, client: MlflowClient) -> tuple[str, str]:
        """The ids of the run and of its root, found or created with the start time of the journal."""
        header = self._journal.header
        more, began = {**header["source"], RECORD_TAG: header["record"]}, header["began"]
        experiment = experiment_id(client, header["experiment"])
        root = root_run(client, experiment, header["pipeline"], more=more, began_ms=began).info.run_id
        tags = {PIPELINE_TAG: header["pipeline"], STAGE_TAG: header["stage"], MODEL_TAG: header["model"]}
        tags[PARENT_TAG] = root
        name = f"{header['stage']} {header['model']}"
        return find_or_create(client, experiment, name, tags, more=more, began_ms=began).info.run_id, root

    def _delete_duplicates(self, client: MlflowClient, ours: set[str]) -> None:
        """Delete runs whose creation seemed to fail, so that they were created again."""
        experiment = experiment_id(client, self._journal.header["experiment"])
        for run in client.search_runs([experiment], f"tags.`{RECORD_TAG}` = '{self._journal.header['record']}'"):
            if run.info.run_id not in ours:
                client.delete_run(run.info.run_id)


def _joined(entries: list[Entry]) -> Iterator[Entry]:
    """The entries, with consecutive metrics merged into one entry: fewer calls."""
    for op, group in groupby(entries, key=lambda entry: entry["op"]):
        if op == "metrics":
            yield {"op": op, "metrics": [values for entry in group for values in entry["metrics"]]}
        else:
            yield from group


def _path(header: Entry) -> Path:
    identity = " ".join(header[key] for key in ("tracking_uri", "experiment", "pipeline", "stage", "model"))
    digest = hashlib.sha256(identity.encode()).hexdigest()[:12]
    return _folder() / f"{header['stage']}-{header['model']}-{digest}.jsonl"


def _folder() -> Path:
    return outbox() / "records"
