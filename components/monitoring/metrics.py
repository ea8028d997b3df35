"""Metrics for Prometheus: training progress, and the outcome of stages.

`METRICS` lists all of them; a test checks the dashboard and the alert rules of infra/observability against it.
They reach Prometheus in two ways. Inside a Ray cluster they go to the node's agent, which Prometheus scrapes; it adds
the prefix ray_, which is dropped later. Everything else is a batch process that may end before it is scraped, so it
pushes to the Pushgateway at SCALED_YOLOV4_PUSHGATEWAY. Without that variable nothing is imported, counted or sent.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import TYPE_CHECKING, Literal, Protocol

from components.monitoring.periodic import periodically
from yolo_core.errors import Diverged, TryAgain, UserError

if TYPE_CHECKING:
    from prometheus_client.core import Metric as Family
    from ray.util.metrics import Counter, Gauge

    from yolo_core.train import Pace

GATEWAY_VARIABLE = "SCALED_YOLOV4_PUSHGATEWAY"
PREFIX = "scaled_yolov4_"
PERIOD_S = 5.0  # between two reports: Ray forgets a gauge that was not set for 20 s
TIMEOUT_S = 3.0  # for the Pushgateway

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Metric:
    kind: Literal["gauge", "counter"]
    help: str


# Names without PREFIX. Labels: model; for those of a stage model and stage, for those of a job stage.
METRICS: dict[str, Metric] = {
    "train_images_total": Metric("counter", "Images trained on, over all workers."),
    "train_step_seconds_total": Metric("counter", "Seconds in training steps, waiting included, of the main worker."),
    "train_loader_wait_seconds_total": Metric("counter", "Of these, seconds waiting for the loader."),
    "train_step": Metric("gauge", "Steps done since training began."),
    "train_last_step_timestamp_seconds": Metric("gauge", "When steps were last reported."),
    "train_loss": Metric("gauge", "Loss of the latest step read, mean of all workers."),
    "train_submitted_timestamp_seconds": Metric("gauge", "When the driver requested workers from the Ray cluster."),
    "train_queue_seconds": Metric("gauge", "Seconds from then until the first worker began to train."),
    "job_queue_seconds": Metric("gauge", "Seconds that the RayJob of a step was queued before it was admitted."),
    "stage_started_timestamp_seconds": Metric("gauge", "When the stage was last started."),
    "stage_ended_timestamp_seconds": Metric("gauge", "When it ended; absent while it runs."),
    "stage_duration_seconds": Metric("gauge", "Seconds from its start to its end; absent while it runs."),
    "stage_exit_code": Metric("gauge", "0 done, 1 a fault, 2 the user can fix it, 3 try again; absent while it runs."),
    "stage_diverged": Metric("gauge", "1 if it ended because the loss was not finite, else 0."),
}

OnReport = Callable[[int, Mapping[str, float], "Pace"], None]


class Exporter(Protocol):
    """Takes values, by their names without PREFIX, towards Prometheus."""

    def export(self, values: Mapping[str, float]) -> None: ...

    def close(self, values: Mapping[str, float]) -> None: ...


@contextmanager
def training(model: str, queued: float | None = None) -> Iterator[OnReport]:
    """Report training progress while the block runs; yields what is to be called whenever the losses are read.

    queued: seconds that it waited for its workers, if it did.
    """
    exporter = _training_exporter(model)
    if exporter is None:
        yield lambda step, losses, pace: None
        return
    values = {"train_last_step_timestamp_seconds": time.time()}
    if queued is not None:
        values["train_queue_seconds"] = queued

    def report(step: int, losses: Mapping[str, float], pace: Pace) -> None:
        values.update(train_step=step, train_last_step_timestamp_seconds=time.time(), train_loss=losses["loss"])
        added = {
            "train_images_total": pace.images,
            "train_step_seconds_total": pace.seconds,
            "train_loader_wait_seconds_total": pace.waiting,
        }
        values.update({name: values.get(name, 0.0) + amount for name, amount in added.items()})

    with _exported(exporter, values):
        yield report


@contextmanager
def submitted(model: str) -> Iterator[None]:
    """Report when a training was submitted to the connected Ray cluster, while the block runs."""
    with _exported(_RayAgent(model), {"train_submitted_timestamp_seconds": time.time()}):
        yield


def job_admitted(step: str, seconds: float) -> None:
    """Report how long the RayJob of a step was queued, if a Pushgateway is configured."""
    if gateway := _jobs(step):
        gateway.export({"job_queue_seconds": seconds})


def job_ended(step: str) -> None:
    """Delete that value: a wait that is over would look like a current one."""
    if gateway := _jobs(step):
        gateway.close({})


def _jobs(step: str) -> _Gateway | None:
    address = os.environ.get(GATEWAY_VARIABLE)
    return _Gateway(address, "jobs", {"stage": step}) if address else None


@contextmanager
def stage(name: str, model: str = "") -> Iterator[None]:
    """Report when the stage in the block started, how long it took and how it ended, if a Pushgateway is configured."""
    address = os.environ.get(GATEWAY_VARIABLE)
    if not address:
        yield
        return
    gateway = _Gateway(address, "stages", {"stage": name, "model": model})
    began, clock = time.time(), time.monotonic()
    gateway.export({"stage_started_timestamp_seconds": began})
    ended: BaseException | None = None
    try:
        yield
    except BaseException as error:
        ended = error
        raise
    finally:
        values = {
            "stage_started_timestamp_seconds": began,
            "stage_ended_timestamp_seconds": time.time(),
            "stage_duration_seconds": time.monotonic() - clock,
            "stage_exit_code": _exit_code(ended),
            "stage_diverged": isinstance(ended, Diverged),
        }
        gateway.export(values)


def _exit_code(error: BaseException | None) -> int:
    if isinstance(error, UserError):
        return 3 if isinstance(error, TryAgain) else 2
    return 0 if error is None else 1


def _training_exporter(model: str) -> Exporter | None:
    if "ray" in sys.modules:  # importing it takes a second, and this process is on a cluster only if something has
        import ray

        if ray.is_initialized():
            return _RayAgent(model)
    address = os.environ.get(GATEWAY_VARIABLE)
    return _Gateway(address, "training", {"model": model}) if address else None


@contextmanager
def _exported(exporter: Exporter, values: dict[str, float]) -> Iterator[None]:
    """Export the current values periodically from a thread while the block runs, so that no step waits for it."""
    try:
        with periodically(lambda: exporter.export(values.copy()), PERIOD_S, "metrics", at_start=True):
            yield
    finally:
        exporter.close(values)


class _RayAgent:
    """Ray's agent on this node, which drops the gauges of a process that has ended."""

    def __init__(self, model: str) -> None:
        self._labels = {"model": model}
        self._metrics: dict[str, Counter | Gauge] = {}
        self._counted: dict[str, float] = {}

    def export(self, values: Mapping[str, float]) -> None:
        from ray.util.metrics import Gauge

        for name, value in values.items():
            metric = self._metric(name)
            if isinstance(metric, Gauge):
                metric.set(value, self._labels)
            elif (more := value - self._counted.get(name, 0.0)) > 0:
                metric.inc(more, self._labels)
                self._counted[name] = value

    def close(self, values: Mapping[str, float]) -> None:
        self.export(values)

    def _metric(self, name: str) -> Counter | Gauge:
        if name not in self._metrics:
            from ray.util.metrics import Counter, Gauge

            kind = Gauge if METRICS[name].kind == "gauge" else Counter
            self._metrics[name] = kind(PREFIX + name, METRICS[name].help, tag_keys=tuple(self._labels))
        return self._metrics[name]


@dataclass(eq=False)
class _Gateway:
    """One group of a Pushgateway, replaced as a whole each time. Failures are logged and change nothing else."""

    address: str
    job: str
    labels: dict[str, str]
    values: Mapping[str, float] = field(default_factory=dict)
    is_down: bool = False

    def export(self, values: Mapping[str, float]) -> None:
        from prometheus_client import CollectorRegistry, push_to_gateway

        self.values, registry = values, CollectorRegistry()
        registry.register(self)  # pyright: ignore[reportArgumentType]
        self._send(push_to_gateway, registry=registry)

    def close(self, values: Mapping[str, float]) -> None:
        """Delete the group: what has ended would look as if it had stalled."""
        from prometheus_client import delete_from_gateway

        self._send(delete_from_gateway)

    def collect(self) -> Iterator[Family]:
        """The values as the library's metrics."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        for name, value in self.values.items():
            metric = METRICS[name]
            kind = GaugeMetricFamily if metric.kind == "gauge" else CounterMetricFamily
            family = kind(PREFIX + name, metric.help, labels=list(self._group()))
            family.add_metric(list(self._group().values()), value)
            yield family

    def _group(self) -> dict[str, str]:
        return {name: value for name, value in self.labels.items() if value}

    def _send(self, how: Callable[..., None], **what: object) -> None:
        try:
            how(self.address, job=PREFIX + self.job, grouping_key=self._group(), timeout=TIMEOUT_S, **what)
            self.is_down = False
        except (OSError, HTTPException, ValueError) as error:
            if not self.is_down:
                log.warning("%s = %s: no metrics sent to Prometheus (%s)", GATEWAY_VARIABLE, self.address, error)
            self.is_down = True
