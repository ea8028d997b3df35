"""Checks of this machine before hours of work depend on it: one line a check, with its mend."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from components import params as parameters
from components import telemetry
from yolo_core.errors import UserError

LEAST_DISK_GB = 5.0
LEAST_SHARED_MEMORY_GB = 1.0


@dataclass(frozen=True)
class Finding:
    """Outcome of one check; `mend` says what to do when it is not `ok`."""

    ok: bool
    says: str
    mend: str = ""


Check = tuple[str, Callable[[], Finding]]  # its name, and what finds out


def run(checks: Sequence[Check]) -> bool:
    """Print every check as it ends; True when all passed."""
    passed = True
    with ThreadPoolExecutor() as pool:  # the slow ones are imports and processes of their own
        for name, finding in zip((name for name, _ in checks), pool.map(lambda c: _guarded(c[1]), checks), strict=True):
            mark = "ok  " if finding.ok else "FAIL"
            print(f"{mark} {name}: {finding.says}" + ("" if finding.ok else f"; {finding.mend}"), flush=True)
            passed &= finding.ok
    return passed


def of_machine(params_file: Path) -> Iterator[Check]:
    """The checks of this machine."""
    yield "parameters", lambda: check_params(params_file)
    yield "torch", check_torch
    yield "shared memory", lambda: check_space(Path("/dev/shm"), LEAST_SHARED_MEMORY_GB, "docker run --shm-size=2g")
    yield "disk", lambda: check_space(Path.cwd(), LEAST_DISK_GB, "free some space or work in another folder")
    yield "ray", check_ray
    yield "mlflow", check_mlflow
    yield "dvc remote", check_dvc_remote
    yield "onnx runtime", lambda: check_package("onnxruntime", "export")
    yield "openvino", lambda: check_package("openvino", "openvino")
    yield "kubeflow pipelines", lambda: check_package("kfp", "pipelines")


def _guarded(check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except Exception as error:  # a check that breaks is a finding, whatever broke it
        return Finding(
            False, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}", "see above"
        )


def check_params(path: Path) -> Finding:
    """Are the parameters valid, and does every model exist?"""
    from yolo_core.models import get_spec

    try:
        params = parameters.load(path)
        for model in [*params.models, params.evolve.model]:
            get_spec(model)
    except UserError as error:
        return Finding(False, str(error), "mend the file")
    return Finding(True, f"{path} is valid, models {', '.join(params.models)}")


def check_torch() -> Finding:
    """Does torch compute on the best device it sees?"""
    import torch

    from yolo_core.device import pick_device

    device = pick_device("auto")
    total = torch.ones(8, device=device).sum().item()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    return Finding(total == 8, f"{torch.__version__} on {name}", "reinstall torch for this machine")


def check_space(folder: Path, least_gb: float, mend: str) -> Finding:
    """Is there room in `folder`?"""
    if not folder.exists():
        return Finding(False, f"{folder} does not exist", mend)
    free_gb = shutil.disk_usage(folder).free / 1e9
    return Finding(free_gb >= least_gb, f"{free_gb:.1f} GB free in {folder}", f"needs {least_gb:g} GB: {mend}")


def check_ray() -> Finding:
    """Is Ray there, and does the cluster it is told to use answer?"""
    import os

    address = os.environ.get("RAY_ADDRESS")
    if not address:
        return Finding(True, f"{version('ray')}, started by each stage (RAY_ADDRESS is not set)")
    command = [sys.executable, "-m", "ray.scripts.scripts", "status", "--address", address]
    answer = subprocess.run(command, capture_output=True, timeout=60, check=False)
    return Finding(
        answer.returncode == 0, f"cluster at {address}", "start it (`ray start --head`) or unset RAY_ADDRESS"
    )


def check_mlflow() -> Finding:
    """Can the tracking store be written?"""
    from components.tracking import connection

    try:
        where = connection.probe()
    except UserError as error:
        return Finding(False, str(error), "set MLFLOW_TRACKING_URI to a store that can be written")
    return Finding(True, f"{version('mlflow')}, {where} can be written")


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
    # --quiet: 0 in step with the remote, 1 something to push; an unreachable one says ERROR
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


def check_bucket(bucket: str) -> Finding:
    """Is there such a bucket in S3, and may we see it?"""
    from components.storage.client import connect

    return _asking_aws(lambda: connect().head_bucket(Bucket=bucket), bucket, "check AWS credentials and region")


def check_image(repository: str, tag: str, region: str) -> Finding:
    """Has the registry an image of this tag? repository: ACCOUNT.dkr.ecr.REGION.amazonaws.com/NAME."""
    from boto3.session import Session

    def ask() -> None:
        ecr = Session().client("ecr", region_name=region)
        ecr.describe_images(repositoryName=repository.partition("/")[2], imageIds=[{"imageTag": tag}])

    return _asking_aws(ask, f"{repository}:{tag}", "make image, then docker push (docs/cluster.md)")


def _asking_aws(ask: Callable[[], object], what: str, mend: str) -> Finding:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        ask()
    except ClientError as error:
        return Finding(False, f"{what}: AWS answers {error.response['Error'].get('Code', error)}", mend)
    except BotoCoreError as error:
        return Finding(False, f"{what}: {error}", mend)
    return Finding(True, what)
