"""Drills of failing services: the object store during uploads and downloads, and the tracking server."""

import csv
import os
import re
import time
from functools import partial
from pathlib import Path
from typing import Literal

import ray_nodes
from faulty_proxy import Direction, Fault, FaultyProxy
from small_training import ROOT, STEPS, parameters

from components.storage import folder
from components.storage.location import Location
from components.tracking import connection
from components.tracking import runs as tracking
from tests.drills.grounds import Grounds, environment, same, stage
from tests.drills.report import Found, Lost
from tests.drills.training import BITS, steps_done, until_step

PARAMS = ROOT / "params.yaml"
PICTURES = ("prepare.digits.train_images=48", "prepare.digits.val_images=16", "prepare.digits.image_size=256")
CHANGES = [word for change in (*PICTURES, "models=[yolov4-tiny]") for word in ("-S", change)]
SLOW_BYTES = 60_000  # a second and connection
BEYOND: dict[Direction, int] = {"up": 5_000, "down": 50_000}  # bytes; more than a listing of the pictures has


def upload(grounds: Grounds, harm: str) -> Found:
    """`prepare` into the store."""
    return _transfer(grounds, harm, "up")


def download(grounds: Grounds, harm: str) -> Found:
    """`anchors` from the store."""
    return _transfer(grounds, harm, "down")


def _transfer(grounds: Grounds, harm: str, direction: Direction) -> Found:
    """Run a stage through a proxy, undisturbed and with the fault: the extra bytes and the extra time."""
    there, name = Location(grounds.bucket, "transfers"), f"{direction}-{harm}"
    with FaultyProxy(os.environ["AWS_ENDPOINT_URL"]) as proxy:
        quiet_s = _moved(grounds, f"{name}-quiet", direction, there / f"{name}-quiet", proxy)
    with FaultyProxy(os.environ["AWS_ENDPOINT_URL"]) as harmful:
        harmful.faults = _faults(harm, direction)
        harmful.rate = SLOW_BYTES if harm == "slow" else None
        harmed_s = _moved(grounds, name, direction, there / name, harmful)
    planned, left = (sum(fault.times for fault in faults) for faults in (_faults(harm, direction), harmful.faults))
    if planned and planned == left:
        raise Lost("no fault hit the transfer: nothing was tested")
    total = proxy.passed[direction]
    more = f"{max(0, harmful.passed[direction] - total) / 1000:.0f} of {total / 1000:.0f} kB"
    return Found(more + f" after {planned - left} faults" * bool(planned), max(0.0, harmed_s - quiet_s))


def _faults(harm: str, direction: Direction) -> list[Fault]:
    """Faults that hit file contents rather than the requests and listings around them."""
    kinds: dict[str, Literal["cut", "damage"]] = {"dropped": "cut", "corrupted": "damage"}
    return [Fault(kinds[harm], direction, at=BEYOND[direction], times=8)] if harm in kinds else []


def _moved(grounds: Grounds, name: str, direction: Direction, there: Location, proxy: FaultyProxy) -> float:
    """Seconds that a stage takes to upload or download the data. Raises Lost unless they arrive intact."""
    home, data = grounds.folder / name, _pictures(grounds)
    home.mkdir()
    words = ["prepare", "--out", there]
    if direction == "down":
        folder.push(data, there)
        words = ["anchors", "--data", there, "--out", "fitted"]
    with environment(AWS_ENDPOINT_URL=proxy.url):
        began = time.monotonic()
        stage(home, *words, "--params", PARAMS, *CHANGES)
        seconds = time.monotonic() - began
    arrived = home / "runs" / "store" / there.bucket / there.key
    if direction == "up":
        folder.pull(there, arrived)
    same(data, arrived, *(str(path.relative_to(data)) for path in data.rglob("[!.]*") if path.is_file()))
    return seconds


def _pictures(grounds: Grounds) -> Path:
    """Dataset that `prepare` writes for these parameters without a store."""
    data = grounds.folder / "pictures"
    if not data.exists():
        stage(grounds.folder, "prepare", "--out", data, "--params", PARAMS, *CHANGES)
    return data


def store_down(grounds: Grounds) -> Found:
    """The results of a training that cannot reach the store wait, and `sync` sends them."""
    bucket, whole, project, name = grounds.bucket, grounds.whole, grounds.project, "store-down"
    there = Location(bucket, name)
    with FaultyProxy(os.environ["AWS_ENDPOINT_URL"]) as proxy, environment(AWS_ENDPOINT_URL=proxy.url):
        with ray_nodes.driver(project, name, out=there) as process:
            ray_nodes.until(lambda: steps_done(project, name), process, project, name)
            proxy.state = "refuse"
            ray_nodes.finish(process, project, name, code=3)
        proxy.state = "through"
        began = time.monotonic()
        stage(project / f"{name}-cwd", "sync")
        seconds = time.monotonic() - began
    folder.pull(there, project / name)
    same(whole, project / name, *BITS)
    if stage(project / f"{name}-cwd", "sync"):
        raise Lost("sync sent something a second time")
    return Found(f"0 of {STEPS} steps", seconds)


def tracking_down(grounds: Grounds) -> Found:
    """The records of a training that cannot reach MLflow wait, and `sync` delivers each once and in order."""
    whole, project, name = grounds.whole, grounds.project, "tracking-down"
    proxy = grounds.enter_context(FaultyProxy(grounds.tracking["MLFLOW_TRACKING_URI"]))
    with environment(**{**grounds.tracking, "MLFLOW_TRACKING_URI": proxy.url}):
        with until_step(project, name, step=4) as process:
            proxy.state = "refuse"
            ray_nodes.finish(process, project, name, code=3)
        proxy.state = "through"
        began = time.monotonic()
        output = stage(project / f"{name}-cwd", "sync")
        seconds = time.monotonic() - began
        if stage(project / f"{name}-cwd", "sync"):
            raise Lost("sync delivered something a second time")
        run = _only_run("train")
        precisions, losses = (_history(run, key) for key in ("val/AP", "train/loss"))
    same(whole, project / name, *BITS)
    rows = csv.DictReader((whole / "curves.csv").read_text().splitlines())
    if precisions != [(int(row["step"]), float(row["AP"])) for row in rows if row["AP"]]:
        raise Lost(f"MLflow has these AP by step: {precisions}")
    steps = [step for step, _ in losses]
    if steps != sorted(set(steps)) or steps[-1] != STEPS:
        raise Lost(f"MLflow has losses of these steps: {steps}")
    found = re.search(r"(\d+) records", output)
    return Found(f"nothing; {found and found[1]} records delivered later, once each", seconds)


def _only_run(which: str) -> str:
    client = connection.connect()
    experiment = connection.experiment_id(client, parameters().experiment)
    runs = client.search_runs([experiment], f"tags.`{tracking.STAGE_TAG}` = '{which}'")
    if [run.info.status for run in runs] != ["FINISHED"]:
        raise Lost(f"instead of one run of {which}: {[(run.info.run_id, run.info.status) for run in runs]}")
    return runs[0].info.run_id


def _history(run: str, name: str) -> list[tuple[int, float]]:
    """Every value of a metric in MLflow as (step, value), in order of recording."""
    found = connection.connect().get_metric_history(run, name)
    return [(metric.step, metric.value) for metric in sorted(found, key=lambda each: (each.timestamp, each.step))]


HARMS = ("dropped", "slow", "corrupted")
UPLOADS = {harm: partial(upload, harm=harm) for harm in HARMS}
DOWNLOADS = {harm: partial(download, harm=harm) for harm in HARMS}
