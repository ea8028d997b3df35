"""Checks of this machine."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from components import parameter_file as parameters
from components import telemetry
from components.doctor.checks import Check, Finding
from components.files import MANIFEST
from components.params import Params
from components.training.ray_cluster import REMEDY, check_address
from components.workspace import DATA
from yolo_core.errors import UserError

MIN_DISK_GB = 5.0
MIN_SHARED_MEMORY_GB = 1.0
SECONDS_PER_HOUR = 3600


def of_machine(params_file: Path) -> Iterator[Check]:
    """The checks of this machine."""
    yield "parameters", lambda: check_params(params_file)
    with suppress(UserError):
        params = parameters.of_project(params_file).load([])
        yield "data", lambda: check_data(params)
        yield "weights", lambda: check_weights(params)
    yield "torch", check_torch
    yield "shared memory", lambda: check_space(Path("/dev/shm"), MIN_SHARED_MEMORY_GB, "docker run --shm-size=2g")
    yield "disk", lambda: check_space(Path.cwd(), MIN_DISK_GB, "free some space or work in another folder")
    yield "ray", check_ray
    yield "mlflow", check_mlflow
    yield "dvc remote", check_dvc_remote
    yield "onnx runtime", lambda: check_package("onnxruntime", "export")
    yield "openvino", lambda: check_package("openvino", "openvino")
    yield "kubeflow pipelines", lambda: check_package("kfp", "pipelines")


def measurements(params_file: Path) -> Iterator[Check]:
    """What is measured on this machine, while no other check keeps it busy."""
    with suppress(UserError):
        params = parameters.of_project(params_file).load([])
        yield "training time", lambda: check_time(params)


def check_params(path: Path) -> Finding:
    """Are the parameters valid, and do all models exist?"""
    try:
        file = parameters.of_project(path)
        params = file.load([])
    except UserError as error:
        return Finding(False, str(error), "fix the file")
    state = "is missing, so the defaults are used" if file.is_missing else "is valid"
    return Finding(True, f"{path} {state}, models {', '.join(params.models)}")


def check_data(params: Params) -> Finding:
    """Can the source of the data be read? Nothing is downloaded."""
    from components.datasets import all_sources

    settings = params.prepare
    try:
        all_sources.resolve(params)
    except UserError as error:
        return Finding(False, str(error), "change `prepare` in the parameters")
    return Finding(True, f"{settings.source} {settings.location or ''}".strip())


def check_weights(params: Params) -> Finding:
    """Can the detectors to start from be read? Those at an address are downloaded by the training."""
    from components.storage.location import is_remote
    from components.storage.start_weights import Source
    from yolo_core.models.weights import read_classes

    named = {model: params.train_settings(model).weights for model in params.models}
    found = []
    for model, weights in named.items():
        if not weights:
            continue
        try:
            source = Source.parse(weights)
            classes = None if is_remote(source.place) else read_classes(Path(source.place))
        except UserError as error:
            return Finding(False, str(error), "change train.weights in the parameters")
        found.append(f"{model} from {source}" + ("" if classes is None else f" of {len(classes)} classes"))
    return Finding(True, ", ".join(found) or "none: trained from random weights")


def check_time(params: Params) -> Finding:
    """How long will the training take here? Measured, with the prepared data."""
    if not (DATA / MANIFEST).exists():
        return Finding(True, "measured here once `prepare` has run")
    from components.datasets.prepared import load_prepared
    from components.project.machine import measure
    from components.project.report import duration

    images = len(load_prepared(DATA, "train"))
    plans = []
    for model in params.models:
        epochs, speed = params.train_settings(model).epochs, measure(params, model, DATA)
        hours = epochs * images / speed.images_per_second / SECONDS_PER_HOUR
        plans.append(f"{model} {duration(hours)} ({epochs} epochs at {speed.images_per_second:.1f} images/s)")
    return Finding(True, ", ".join(plans))


def check_torch() -> Finding:
    """Does torch compute on the best available device?"""
    import torch

    from yolo_core.device import pick_device

    device = pick_device("auto")
    total = torch.ones(8, device=device).sum().item()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    return Finding(total == 8, f"{torch.__version__} on {name}", "reinstall torch for this machine")


def check_space(folder: Path, least_gb: float, fix: str) -> Finding:
    """Does `folder` have enough free space?"""
    if not folder.exists():
        return Finding(False, f"{folder} does not exist", fix)
    free_gb = shutil.disk_usage(folder).free / 1e9
    return Finding(free_gb >= least_gb, f"{free_gb:.1f} GB free in {folder}", f"needs {least_gb:g} GB: {fix}")


def check_ray() -> Finding:
    """Is Ray installed, and does the cluster at RAY_ADDRESS answer?"""
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        return Finding(True, f"{version('ray')}, started by each stage (RAY_ADDRESS is not set)")
    try:
        check_address(address)
    except UserError as error:
        return Finding(False, f"cluster at {address}", str(error).rpartition("; ")[2])
    command = [sys.executable, "-m", "ray.scripts.scripts", "status", "--address", address]
    answer = subprocess.run(command, capture_output=True, timeout=60, check=False)
    return Finding(answer.returncode == 0, f"cluster at {address}", REMEDY)


def check_mlflow() -> Finding:
    """Is the tracking store writable?"""
    from components.tracking.connection import probe

    try:
        where = probe()
    except UserError as error:
        return Finding(False, str(error), "set MLFLOW_TRACKING_URI to a writable store")
    return Finding(True, f"{version('mlflow')}, {where} is writable")


def check_dvc_remote() -> Finding:
    """Does the default DVC remote answer?"""
    telemetry.turn_off()
    command = [sys.executable, "-m", "dvc", "remote", "default"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    name = found.stdout.strip()
    if found.returncode or not name or name.startswith("No default"):
        return Finding(False, "no default remote", "`dvc remote add -d NAME s3://bucket/prefix`")
    listing = subprocess.run(
        [sys.executable, "-m", "dvc", "status", "--cloud", "--quiet"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    # --quiet: exits with 0 if up to date, 1 if there is something to push; for an unreachable remote it prints ERROR
    reachable = "ERROR" not in listing.stderr
    return Finding(
        reachable, f"{name} answers" if reachable else listing.stderr.strip().splitlines()[-1], "dvc remote list"
    )


def check_package(name: str, extra: str) -> Finding:
    """Is an optional package installed?"""
    try:
        return Finding(True, version(name))
    except PackageNotFoundError:
        return Finding(False, f"{name} is not installed", f"pip install 'scaled-yolov4[{extra}]'")
