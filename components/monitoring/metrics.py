"""Figures for Prometheus: how a training goes, and how stages end.

`METRICS` names all of them; a test holds the dashboard and the alert rules of infra/observability to it.
Two ways lead to Prometheus. Inside a Ray cluster figures go to the agent of the node, which Prometheus scrapes; they
carry the prefix ray_ there, which is dropped on the way. Everything else is a batch process that may end before
anybody scrapes it: it pushes to the Pushgateway whose address is in SCALED_YOLOV4_PUSHGATEWAY. Without that variable
nothing is imported, counted or sent.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, Literal, Protocol

from yolo_core.errors import Diverged, TryAgain, UserError

if TYPE_CHECKING:
    from yolo_core.train import Pace

GATEWAY_VARIABLE = "SCALED_YOLOV4_PUSHGATEWAY"
PREFIX = "scaled_yolov4_"
PERIOD_S = 5.0  # between two tellings: Ray forgets a gauge that was not set for 20 s
PATIENCE_S = 3.0  # with the Pushgateway

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Metric:
    kind: Literal["gauge", "counter"]
    help: str


# Names without PREFIX. Labels: model, and for those of a stage also stage; of a job only that.
METRICS: dict[str, Metric] = {
    "train_images_total": Metric("counter", "Images trained on, over all workers."),
    "train_step_seconds_total": Metric("counter", "Seconds in training steps, waiting included, of the main worker."),
    "train_loader_wait_seconds_total": Metric("counter", "Of these, seconds of waiting for the loader."),
    "train_step": Metric("gauge", "Steps done since the training began."),
    "train_last_step_timestamp_seconds": Metric("gauge", "When steps were last seen to be done."),
    "train_loss": Metric("gauge", "Loss of the latest step looked at, mean of all workers."),
    "train_submitted_timestamp_seconds": Metric("gauge", "When the driver asked the Ray cluster for workers."),
    "train_queue_seconds": Metric("gauge", "Seconds from then until the first of them began to train."),
    "job_queue_seconds": Metric("gauge", "Seconds that the RayJob of a step waited until it was let start."),
    "stage_started_timestamp_seconds": Metric("gauge", "When the stage was last started."),
    "stage_ended_timestamp_seconds": Metric("gauge", "When it ended; absent while it runs."),
    "stage_duration_seconds": Metric("gauge", "Seconds from its start to its end; absent while it runs."),
    "stage_exit_code": Metric("gauge", "0 done, 1 a fault, 2 the user can mend it, 3 try again; absent while it runs."),
    "stage_diverged": Metric("gauge", "1 where it ended because the loss was not finite, else 0."),
}

OnLook = Callable[[int, Mapping[str, float], "Pace"], None]


class Carrier(Protocol):
    """What takes figures, by their names without PREFIX, towards Prometheus."""

    def give(self, values: Mapping[str, float]) -> None: ...

    def end(self, values: Mapping[str, float]) -> None: ...


@contextmanager
def training(model: str, queued: float | None = None) -> Iterator[OnLook]:
    """Tell how a training goes while the block runs; yields what is called at every look at the losses.

    queued: seconds that it waited for its workers, where it did.
    """
    carrier = _carrier_of_training(model)
    if carrier is None:
        yield lambda step, losses, pace: None
        return
    values = {"train_last_step_timestamp_seconds": time.time()}
    if queued is not None:
        values["train_queue_seconds"] = queued

    def look(step: int, losses: Mapping[str, float], pace: Pace) -> None:
        values.update(train_step=step, train_last_step_timestamp_seconds=time.time(), train_loss=losses["loss"])
        added = {
            "train_images_total": pace.images,
            "train_step_seconds_total": pace.seconds,
            "train_loader_wait_seconds_total": pace.waiting,
        }
        values.update({name: values.get(name, 0.0) + amount for name, amount in added.items()})

    with _told(carrier, values):
        yield look


@contextmanager
def submitted(model: str) -> Iterator[None]:
    """Tell since when a training is in the hands of the connected Ray cluster, while the block runs."""
    with _told(_RayAgent(model), {"train_submitted_timestamp_seconds": time.time()}):
        yield


def job_admitted(step: str, seconds: float) -> None:
    """Tell how long the RayJob of a step waited in its queue, where a Pushgateway is named."""
    if gateway := _jobs(step):
        gateway.give({"job_queue_seconds": seconds})


def job_ended(step: str) -> None:
    """Take that back: a wait that is over would look like one of now."""
    if gateway := _jobs(step):
        gateway.end({})


def _jobs(step: str) -> _Gateway | None:
    address = os.environ.get(GATEWAY_VARIABLE)
    return _Gateway(address, "jobs", {"stage": step}) if address else None


@contextmanager
def stage(name: str, model: str = "") -> Iterator[None]:
    """Tell when the stage in the block started, how long it took and how it ended, where a Pushgateway is named."""
    address = os.environ.get(GATEWAY_VARIABLE)
    if not address:
        yield
        return
    gateway = _Gateway(address, "stages", {"stage": name, "model": model})
    began, clock = time.time(), time.monotonic()
    gateway.give({"stage_started_timestamp_seconds": began})
    ended: BaseException | None = None
    try:
        yield
    except BaseException as error:
        ended = error
        raise
    finally:
        figures = {
            "stage_started_timestamp_seconds": began,
            "stage_ended_timestamp_seconds": time.time(),
            "stage_duration_seconds": time.monotonic() - clock,
            "stage_exit_code": _exit_code(ended),
            "stage_diverged": isinstance(ended, Diverged),
        }
        gateway.give(figures)


def _exit_code(error: BaseException | None) -> int:
    if isinstance(error, UserError):
        return 3 if isinstance(error, TryAgain) else 2
    return 0 if error is None else 1


def _carrier_of_training(model: str) -> Carrier | None:
    import ray

    if ray.is_initialized():
        return _RayAgent(model)
    address = os.environ.get(GATEWAY_VARIABLE)
    return _Gateway(address, "training", {"model": model}) if address else None


@contextmanager
def _told(carrier: Carrier, values: dict[str, float]) -> Iterator[None]:
    """Give the values as they are, now and then from a thread of its own while the block runs: no step waits for it."""
    over = threading.Event()

    def tell() -> None:
        carrier.give(values.copy())
        while not over.wait(PERIOD_S):
            carrier.give(values.copy())

    thread = threading.Thread(target=tell, name="metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        carrier.end(values)


class _RayAgent:
    """Ray's agent on this node; it drops the gauges of a process that has ended."""

    def __init__(self, model: str) -> None:
        self._labels = {"model": model}
        self._metrics: dict[str, Any] = {}
        self._given: dict[str, float] = {}

    def give(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            if METRICS[name].kind == "gauge":
                self._metric(name).set(value, self._labels)
            elif (more := value - self._given.get(name, 0.0)) > 0:
                self._metric(name).inc(more, self._labels)
                self._given[name] = value

    def end(self, values: Mapping[str, float]) -> None:
        self.give(values)

    def _metric(self, name: str) -> Any:
        if name not in self._metrics:
            from ray.util.metrics import Counter, Gauge

            kind = Gauge if METRICS[name].kind == "gauge" else Counter
            self._metrics[name] = kind(PREFIX + name, METRICS[name].help, tag_keys=tuple(self._labels))
        return self._metrics[name]


@dataclass(eq=False)
class _Gateway:
    """One group of a Pushgateway, replaced as a whole each time. One that is away is no reason to stop working."""

    address: str
    job: str
    labels: dict[str, str]
    values: Mapping[str, float] = field(default_factory=dict)
    is_away: bool = False

    def give(self, values: Mapping[str, float]) -> None:
        from prometheus_client import CollectorRegistry, push_to_gateway

        self.values, registry = values, CollectorRegistry()
        registry.register(self)  # pyright: ignore[reportArgumentType]
        self._send(push_to_gateway, registry=registry)

    def end(self, values: Mapping[str, float]) -> None:
        """Delete the group: what no longer goes on would look as if it stood still."""
        from prometheus_client import delete_from_gateway

        self._send(delete_from_gateway)

    def collect(self) -> Iterator[Any]:
        """The values in the library's terms."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        for name, value in self.values.items():
            metric = METRICS[name]
            kind = GaugeMetricFamily if metric.kind == "gauge" else CounterMetricFamily
            family = kind(PREFIX + name, metric.help, labels=list(self._group()))
            family.add_metric(list(self._group().values()), value)
            yield family

    def _group(self) -> dict[str, str]:
        return {name: value for name, value in self.labels.items() if value}

    def _send(self, how: Callable[..., None], **what: Any) -> None:
        try:
            how(self.address, job=PREFIX + self.job, grouping_key=self._group(), timeout=PATIENCE_S, **what)
            self.is_away = False
        except (OSError, HTTPException, ValueError) as error:
            if not self.is_away:
                log.warning("%s = %s: no figures for Prometheus (%s)", GATEWAY_VARIABLE, self.address, error)
            self.is_away = True
