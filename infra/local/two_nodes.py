"""From data in the object store to a registered model, trained by two Ray nodes, all on loopback.

    python -m infra.local.two_nodes

Starts the services of `infra.local.services` (SeaweedFS; MLflow with accounts on PostgreSQL) and leaves them running. A
Ray head and two nodes of one processor, which share no folder, run while the stages do. Every path of every stage is in
the store, unfinished work included: after a kill, the same command resumes the training.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from components import telemetry
from components.stage_table import default_paths
from infra.local import servers
from infra.local.process import ServiceError
from infra.local.services import FOLDER, Services

ROOT = Path(__file__).parents[2]
MODEL = "yolov4-tiny"
STAGES = ("prepare", "anchors", "evolve", "train", "evaluate", "export", "benchmark", "register", "promote")
FOR_ALL = ("prepare", "anchors", "evolve")  # without --model
SMALL = (
    f"models=[{MODEL}]",
    "prepare.digits.train_images=64",
    "prepare.digits.val_images=16",
    "prepare.digits.image_size=128",
    "evolve.trials=0",
    "train.size=96",
    "train.epochs=2",
    "train.batch=8",
    "train.nominal_batch=8",
    "train.workers=2",
    "train.sync_bn=true",
    "export.check_images=8",
    "export.calibration_images=8",
    "benchmark.runs=5",
)
STAGE_LIMIT_S = 900


@contextlib.contextmanager
def nodes(folder: Path, count: int = 2) -> Iterator[str]:
    """The address of a Ray cluster: a head for the driver alone, and nodes with a processor and a folder each."""
    from ray.cluster_utils import Cluster

    from components.training.nodes import NODE_VARIABLE

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for number in range(1, count + 1):
            cluster.add_node(num_cpus=1, env_vars={NODE_VARIABLE: str(folder / f"node{number}")})
        assert cluster.address
        yield cluster.address
    finally:
        cluster.shutdown()


def command(stage: str, root: str, changes: list[str]) -> list[str]:
    """A stage with all its paths below `root`."""
    words = [f"--{option}={root}/{path}" for option, path in default_paths(stage, MODEL).items()]
    words += [] if stage in FOR_ALL else [f"--model={MODEL}"]
    words += [f"--params={ROOT / 'params.yaml'}", *(f"-S{change}" for change in (*SMALL, *changes))]
    return [sys.executable, "-m", "components.cli", stage, *words]


def run(services: Services, root: str, changes: list[str]) -> int:
    """All stages in order; the exit code of the first that fails, else 0."""
    folder = services.folder / "two-nodes"
    folder.mkdir(exist_ok=True)
    os.environ.update(services.variables(), PYTHONPATH=str(ROOT))
    with nodes(folder) as address:
        for number, stage in enumerate(STAGES, 1):
            print(f"{number}/{len(STAGES)} {stage} ...", flush=True)
            began, words = time.monotonic(), command(stage, root, changes)
            variables = {**os.environ, **({"RAY_ADDRESS": address} if stage == "train" else {})}
            done = subprocess.run(words, cwd=folder, env=variables, timeout=STAGE_LIMIT_S, check=False)
            if done.returncode:
                return done.returncode
            print(f"  {time.monotonic() - began:.0f} s", flush=True)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m infra.local.two_nodes", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of the services (%(default)s)")
    parser.add_argument("--root", default=f"s3://{servers.BUCKET}/two-nodes", help="address in the store (%(default)s)")
    parser.add_argument("-S", "--set", dest="changes", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    telemetry.turn_off()
    services = Services(given.folder.absolute())
    try:
        services.up()
    except ServiceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    code = run(services, given.root, given.changes)
    print(f"MLflow: {services.variables()['MLFLOW_TRACKING_URI']}, with the account of {given.folder}/env")
    print("`make services-down` stops the services.")
    return code


if __name__ == "__main__":
    sys.exit(main())
