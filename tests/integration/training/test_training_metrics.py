"""A training's metrics on their way to Prometheus: through a Pushgateway, and through a Ray cluster's agent."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from gateway import Figures, KeptPushes, fetched
from small_training import STEPS, run
from waiting import until

from components.monitoring import metrics
from components.monitoring.metrics import GATEWAY_VARIABLE, METRICS, PREFIX

IMAGES = STEPS * 4  # a batch


@pytest.fixture
def agent() -> Iterator[str]:
    """The metrics address of a Ray cluster of one node, which exports every second."""
    ray.init("local", num_cpus=2, include_dashboard=False, _system_config={"metrics_report_interval_ms": 1000})
    try:
        yield f"http://127.0.0.1:{ray.nodes()[0]['MetricsExportPort']}"
    finally:
        ray.shutdown()


def exported_by_ray(address: str) -> Figures:
    """The project's metrics, named as Prometheus keeps them after dropping Ray's prefix."""
    return {
        name.removeprefix("ray_"): value for name, value in fetched(address).items() if name.startswith(f"ray_{PREFIX}")
    }


def test_a_training_in_this_process_pushes(project: Path, tracking: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "PERIOD_S", 0.02)
    with KeptPushes() as kept:
        monkeypatch.setenv(GATEWAY_VARIABLE, kept.url)
        run(project, "pushed")
    pushed = [figures for how, _, figures in kept.pushes if how == "PUT"]
    assert kept.pushes[-1][0] == "DELETE"
    names = {name.removeprefix(PREFIX) for figures in pushed for name in figures}
    queueing = {"train_submitted_timestamp_seconds", "train_queue_seconds"}
    assert names == {name for name in METRICS if name.startswith("train_")} - queueing
    last = pushed[-1]
    steps = last["scaled_yolov4_train_step"]
    assert last["scaled_yolov4_train_images_total"] == steps * 4
    assert 0 < last["scaled_yolov4_train_loader_wait_seconds_total"] < last["scaled_yolov4_train_step_seconds_total"]


@pytest.mark.slow
def test_a_training_on_a_cluster_exports_through_the_agent_of_ray(
    project: Path, tracking: None, agent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "the cluster of this test")  # already connected to
    seen: Figures = {}
    before = time.time()
    run(project, "on-ray", "train.workers=1")
    after = time.time()

    def all_images_exported() -> bool:
        seen.update(exported_by_ray(agent))
        return seen.get("scaled_yolov4_train_images_total") == IMAGES

    until(all_images_exported, f"{IMAGES} images exported by Ray")
    assert seen.keys() == {PREFIX + name for name in METRICS if name.startswith("train_")}
    assert seen["scaled_yolov4_train_step"] == STEPS
    assert 0 < seen["scaled_yolov4_train_queue_seconds"] <= after - before
    assert before <= seen["scaled_yolov4_train_submitted_timestamp_seconds"] <= after
    assert 0 < seen["scaled_yolov4_train_loader_wait_seconds_total"] < seen["scaled_yolov4_train_step_seconds_total"]
