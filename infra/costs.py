"""Estimated costs of the platform and of trainings: `python -m infra.costs` prints the tables of docs/cluster.md.

Training time is FLOPs over the GPUs' peak at an assumed utilisation; nothing was measured.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from components import parameter_file
from infra.checks.terraform_config import Config, load, unquoted
from pipelines.rayjob.sizes import JOB_SIZES, JobSize
from yolo_core.models import get_spec
from yolo_core.models.published import PEAK_TFLOPS

ROOT = Path(__file__).parents[1]
ENVIRONMENTS = ROOT / "infra" / "terraform" / "envs"
RECIPES = parameter_file.load(ROOT / "params" / "coco.yaml")
MODELS = ("yolov4-tiny", "yolov4-csp", "yolov4-p5", "yolov4-p6", "yolov4-p7", "yolov7", "yolov7-w6", "yolov7-e6e")

# Assumed list prices in US dollars, us-east-1, on demand, recalled from 2025 and not looked up.
PER_HOUR = {
    "m7i.xlarge": 0.2016,
    "m7i.2xlarge": 0.4032,
    "g6.2xlarge": 0.9776,
    "g6.12xlarge": 4.6016,
    "g6.48xlarge": 13.3504,
    "p4d.24xlarge": 21.9576,
    "db.t4g.medium": 0.065,
    "db.m7g.large": 0.168,
    "control plane": 0.10,
    "NAT gateway": 0.045,
    "load balancer": 0.0225,
    "interface endpoint": 0.01,  # in each zone
}
SPOT = 0.4  # of the price on demand
HOURS_PER_MONTH = 730

UTILISATION = 0.35  # of the dense float16 peak, over a whole training
BACKWARD = 2  # FLOPs of the backward pass, in forward passes
TRAIN_IMAGES, VAL_IMAGES = 118_287, 5_000  # COCO 2017
GPUS = {"nvidia-l4": "L4", "nvidia-a100": "A100"}


@dataclass(frozen=True)
class Training:
    """One model's training by the published recipe."""

    model: str
    nodes: int
    instance: str
    hours: float
    dollars: float
    """On demand, for all nodes."""


class GpuPool(TypedDict):
    """A pool of GPU nodes, as an environment passes it to the platform; texts stand in quotes."""

    instance_types: list[str]
    accelerator: str
    """Key of `GPUS`."""

    capacity_type: str
    """ON_DEMAND or SPOT."""

    gpus: int
    """Of a node."""

    gpu_memory_gib: int
    """Of a GPU."""


def training(model: str) -> Training:
    """FLOPs of all images of all epochs, forward and backward, over the FLOP/s of the job's GPUs."""
    size, recipe = JOB_SIZES[model], RECIPES.train_settings(model)
    pool = pool_of(size, load(ENVIRONMENTS / "prod"))
    epochs = recipe.second_stage.epochs if recipe.second_stage else recipe.epochs
    work = forward_flops(model, recipe.size) * (1 + BACKWARD) * TRAIN_IMAGES * epochs
    hours = work / (flops_per_second(pool) * size.all_gpus) / 3600
    instance = unquoted(pool["instance_types"][0])
    return Training(model, size.nodes, instance, hours, hours * size.nodes * PER_HOUR[instance])


def evaluation_dollars(model: str) -> float:
    """Every validation image once without TTA and once at each of its scales, on the smallest pool; USD."""
    pool = load(ENVIRONMENTS / "prod").modules["platform"]["gpu_pools"]["single"]
    passes = 1 + sum(scale**2 for scale in RECIPES.evaluate.tta.scales)
    work = forward_flops(model, RECIPES.train_settings(model).size) * VAL_IMAGES * passes
    return work / flops_per_second(pool) / 3600 * PER_HOUR[unquoted(pool["instance_types"][0])]


def idle_dollars(environment: str) -> dict[str, float]:
    """USD per month for what runs while nothing is trained."""
    platform = load(ENVIRONMENTS / environment).modules["platform"]
    network = load(ROOT / "infra" / "terraform" / "modules" / "network").variables
    general, database = platform["general_pool"], platform["database"]
    zones, endpoints = len(network["zones"]["default"]), len(network["interface_endpoints"]["default"])
    hourly = {
        "EKS control plane": PER_HOUR["control plane"],
        "general nodes": general["min_nodes"] * PER_HOUR[unquoted(general["instance_types"][0])],
        "database": PER_HOUR[unquoted(database["instance_class"])] * (2 if database["multi_az"] else 1),
        "NAT gateways": platform["nat_gateways"] * PER_HOUR["NAT gateway"],
        "interface endpoints": zones * endpoints * PER_HOUR["interface endpoint"],
        "load balancer": PER_HOUR["load balancer"],
    }
    return {item: dollars * HOURS_PER_MONTH for item, dollars in hourly.items()}


def pool_of(size: JobSize, environment: Config) -> GpuPool:
    """The first on-demand pool whose nodes have the GPUs that a job needs."""
    return next(
        pool
        for pool in environment.modules["platform"]["gpu_pools"].values()
        if unquoted(pool["capacity_type"]) == "ON_DEMAND"
        and pool["gpus"] == size.gpus
        and pool["gpu_memory_gib"] >= size.gpu_memory
    )


def forward_flops(model: str, size: int) -> float:
    """FLOPs of one image: the model's published figure, scaled from its native size."""
    spec = get_spec(model)
    assert spec.published.gflops is not None
    return spec.published.gflops * 1e9 * (size / spec.native_size) ** 2


def flops_per_second(pool: GpuPool) -> float:
    return PEAK_TFLOPS[GPUS[unquoted(pool["accelerator"])]] * 1e12 * UTILISATION


def tables() -> str:
    """Both tables in Markdown."""
    idle = {environment: idle_dollars(environment) for environment in ("dev", "prod")}
    rows = ["| per month, nothing running | dev, USD | prod, USD |", "|---|---|---|"]
    rows += [f"| {item} | {_about(idle['dev'][item])} | {_about(idle['prod'][item])} |" for item in idle["dev"]]
    rows += [f"| total | {_about(sum(idle['dev'].values()))} | {_about(sum(idle['prod'].values()))} |", ""]
    rows += ["| model | nodes | training hours | USD on demand | USD on spot | USD per evaluation |"]
    rows += ["|---|---|---|---|---|---|"]
    for one in map(training, MODELS):
        rows.append(
            f"| {one.model} | {one.nodes} x {one.instance} | {one.hours:.0f} | {_about(one.dollars)} "
            f"| {_about(one.dollars * SPOT)} | {evaluation_dollars(one.model):.2f} |"
        )
    return "\n".join(rows) + "\n"


def _about(dollars: float) -> str:
    """Rounded to two digits: the prices are recalled, so more would be false precision."""
    return f"{float(f'{dollars:.2g}'):.0f}"


if __name__ == "__main__":
    print(tables(), end="")
