"""Checks of this machine."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from components import parameter_file as parameters
from components import telemetry
from components.doctor.checks import Check, Finding
from components.training.ray_cluster import REMEDY, check_address
from yolo_core.errors import UserError

MIN_DISK_GB = 5.0
MIN_SHARED_MEMORY_GB = 1.0


def of_machine(params_file: Path) -> Iterator[Check]:
    """The checks of this machine."""
    yield "parameters", lambda: check_params(params_file)
    yield "torch", check_torch
    yield "shared memory", lambda: check_space(Path("/dev/shm"), MIN_SHARED_MEMORY_GB, "docker run --shm-size=2g")
    yield "disk", lambda: check_space(Path.cwd(), MIN_DISK_GB, "free some space or work in another folder")
    yield "ray", check_ray
    yield "mlflow", check_mlflow
    yield "dvc remote", check_dvc_remote
    yield "onnx runtime", lambda: check_package("onnxruntime", "export")
    yield "openvino", lambda: check_package("openvino", "openvino")
    yield "kubeflow pipelines", lambda: check_package("kfp", "pipelines")


def check_params(path: Path) -> Finding:
    """Are the parameters valid, and do all models exist?"""
    try:
        params = parameters.load(path)
    except UserError as error:
        return Finding(False, str(error), "fix the file")
    return Finding(True, f"{path} is valid, models {', '.join(params.models)}")


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
