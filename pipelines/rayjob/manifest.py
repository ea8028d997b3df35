"""Manifests of RayJobs (KubeRay, ray.io/v1): one stage's command on a cluster of Ray nodes that lives as long as it.

Pure: a description in, the manifest out. `pipelines.rayjob.runner` creates it and follows it.
"""

import hashlib
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipelines.rayjob.sizes import GPU, JobSize
from pipelines.secret import SECRET

GROUP, VERSION, PLURAL = "ray.io", "v1", "rayjobs"
APP = "scaled-yolov4"
RUN_LABEL, STEP_LABEL, ATTEMPT_LABEL = (f"{APP}/{name}" for name in ("run", "step", "attempt"))
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
MAX_NAME = 47  # KubeRay makes longer names of it: pods, services, the cluster
MAX_LABEL = 63

STOP_SECONDS = 90  # between SIGTERM and SIGKILL of Ray's processes: time for a checkpoint
POD_STOP_SECONDS = STOP_SECONDS + 30
DAY = 86_400
HEAD_CPUS, HEAD_MEMORY = 4, 16  # GiB; runs Ray's services and the driver, no trials and no training
OBJECT_STORE_SHARE = 4  # Ray's object store takes 1 / this of /dev/shm; the loaders and NCCL have the rest
GIB = 2**30

# Neither the cluster autoscaler nor Karpenter moves a pod that is at work only to pack nodes more tightly.
STAY = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false", "karpenter.sh/do-not-disrupt": "true"}


@dataclass(frozen=True)
class RayJob:
    """What to run, where, and on how much.

    run, step, attempt: whose it is; they make its name. command: argv of the entrypoint, run on the head.
    size: the GPU workers at most. min_nodes: how many there are from the start; None is all of them.
    queue: Kueue's LocalQueue, which starts all pods at once or none; such a job has a fixed number of nodes.
    secret: its keys become environment variables of every pod; it may be absent. environment: further variables.
    node_selector: labels that GPU nodes must have. Seconds: start_within, until its pods run; deadline, that it may
    run; ttl, that its nodes stay after the end (the RayJob itself stays until it is deleted).
    """

    run: str
    step: str
    command: Sequence[str]
    image: str
    size: JobSize
    ray_version: str
    namespace: str
    attempt: int = 1
    min_nodes: int | None = None
    queue: str = ""
    secret: str = SECRET
    environment: Mapping[str, str] = field(default_factory=dict)
    node_selector: Mapping[str, str] = field(default_factory=dict)
    service_account: str = ""
    deadline: int = 14 * DAY
    start_within: int = DAY
    ttl: int = 60

    @property
    def name(self) -> str:
        return job_name(self.run, self.step, self.attempt)

    @property
    def labels(self) -> dict[str, str]:
        """Of the job and of all its pods: a PodDisruptionBudget or a search finds them by these."""
        return {"app.kubernetes.io/name": APP, **identity(self.run, self.step), ATTEMPT_LABEL: str(self.attempt)}


def job_name(run: str, step: str, attempt: int) -> str:
    """The name of the job: the same for the same run, step and attempt; a DNS label that starts with a letter."""
    digest = hashlib.sha256(f"{run}\n{step}".encode()).hexdigest()[:10]
    ending = f"-{digest}-{attempt}"
    return f"{_slug(f'job-{step}', MAX_NAME - len(ending))}{ending}"


def identity(run: str, step: str) -> dict[str, str]:
    """The labels by which a job of this step of this run is found again."""
    return {RUN_LABEL: _label(run), STEP_LABEL: _label(step)}


def manifest(job: RayJob) -> dict[str, Any]:
    """The RayJob. KubeRay deletes the Ray cluster when the command ends, and does not try again itself: it cannot tell
    a mistake of the user from a lost node, whoever made the job can."""
    autoscaling = not job.queue and job.min_nodes is not None and job.min_nodes < job.size.nodes
    started = job.min_nodes if autoscaling and job.min_nodes is not None else job.size.nodes
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "RayJob",
        "metadata": {
            "name": job.name,
            "namespace": job.namespace,
            "labels": job.labels | ({QUEUE_LABEL: job.queue} if job.queue else {}),
        },
        "spec": {
            "entrypoint": shlex.join(job.command),
            "suspend": bool(job.queue),  # Kueue lets it go when there is room for all of it
            "submissionMode": "K8sJobMode",
            "submitterConfig": {"backoffLimit": 3},  # of handing the command over, not of the command
            "submitterPodTemplate": _submitter(job),
            "backoffLimit": 0,
            "activeDeadlineSeconds": job.deadline,
            "preRunningDeadlineSeconds": job.start_within,
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": job.ttl,
            "rayClusterSpec": {
                "rayVersion": job.ray_version,
                "authOptions": {"mode": "token"},  # KubeRay makes a token for this cluster alone
                "enableInTreeAutoscaling": autoscaling,
                **({"autoscalerOptions": AUTOSCALER} if autoscaling else {}),
                "headGroupSpec": {
                    "rayStartParams": {"num-cpus": "0", "dashboard-host": "0.0.0.0"},
                    "template": _pod(job, _head(job), _shm(2)),
                },
                "workerGroupSpecs": [
                    {
                        "groupName": "gpu",
                        "replicas": started,
                        "minReplicas": started,
                        "maxReplicas": job.size.nodes,
                        "rayStartParams": {
                            "num-gpus": str(job.size.gpus),
                            "object-store-memory": str(job.size.shm * GIB // OBJECT_STORE_SHARE),
                        },
                        "template": _pod(job, _worker(job), _shm(job.size.shm), gpu=True),
                    }
                ],
            },
        },
    }


AUTOSCALER = {
    "version": "v2",
    "idleTimeoutSeconds": 120,
    "resources": {"requests": {"cpu": "200m", "memory": "512Mi"}, "limits": {"memory": "512Mi"}},
}


def _pod(job: RayJob, container: dict[str, Any], shm: dict[str, Any], *, gpu: bool = False) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "restartPolicy": "Never",  # a Ray node that ended does not come back as the same one
        "terminationGracePeriodSeconds": POD_STOP_SECONDS,
        "containers": [container],
        "volumes": [shm],
    }
    if gpu:
        spec["tolerations"] = [{"key": GPU, "operator": "Exists", "effect": "NoSchedule"}]
        if job.node_selector:
            spec["nodeSelector"] = dict(job.node_selector)
    if job.service_account:
        spec["serviceAccountName"] = job.service_account
    return {"metadata": {"labels": job.labels, "annotations": dict(STAY)}, "spec": spec}


def _head(job: RayJob) -> dict[str, Any]:
    return {
        **_ray_container(job, "ray-head", HEAD_CPUS, HEAD_MEMORY),
        "ports": [
            {"containerPort": port, "name": name}
            for port, name in ((6379, "gcs"), (8265, "dashboard"), (10001, "client"))
        ],
        **_probes("/api/gcs_healthz", 8265),
    }


def _worker(job: RayJob) -> dict[str, Any]:
    container = _ray_container(job, "ray-worker", job.size.cpus, job.size.memory)
    for share in container["resources"].values():
        share[GPU] = str(job.size.gpus)
    return {**container, **_probes("/api/local_raylet_healthz", 52365)}


def _ray_container(job: RayJob, name: str, cpus: int, memory: int) -> dict[str, Any]:
    return {
        **_container(job, name),
        "resources": {
            "requests": {"cpu": str(cpus), "memory": f"{memory}Gi"},
            "limits": {"cpu": str(cpus), "memory": f"{memory}Gi"},
        },
        "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}],
        # Ray's own way to stop sends SIGTERM to its workers and waits; Kubernetes' SIGTERM comes after it.
        "lifecycle": {"preStop": {"exec": {"command": ["ray", "stop", "--grace-period", str(STOP_SECONDS)]}}},
    }


def _submitter(job: RayJob) -> dict[str, Any]:
    """The pod that hands the command to Ray and shows what it prints."""
    container = {
        **_container(job, "submitter"),
        "resources": {"requests": {"cpu": "200m", "memory": "512Mi"}, "limits": {"memory": "512Mi"}},
    }
    spec = {"restartPolicy": "Never", "containers": [container]}
    return {"metadata": {"labels": job.labels, "annotations": dict(STAY)}, "spec": spec}


def _container(job: RayJob, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "image": job.image,
        "env": [{"name": key, "value": value} for key, value in {**OFF, **job.environment}.items()],
        "envFrom": [{"secretRef": {"name": job.secret, "optional": True}}],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }


OFF = {"RAY_USAGE_STATS_ENABLED": "0", "MLFLOW_DISABLE_TELEMETRY": "true"}


def _shm(gib: int) -> dict[str, Any]:
    return {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": f"{gib}Gi"}}


def _probes(path: str, port: int) -> dict[str, Any]:
    """Ours rather than KubeRay's, which need wget in the image. Liveness waits long: a busy node is not a dead one."""
    request = {"httpGet": {"path": path, "port": port}, "timeoutSeconds": 5}
    return {
        "readinessProbe": {**request, "initialDelaySeconds": 10, "periodSeconds": 5, "failureThreshold": 10},
        "livenessProbe": {**request, "initialDelaySeconds": 30, "periodSeconds": 10, "failureThreshold": 60},
    }


def _label(text: str) -> str:
    """The text as the value of a label; what does not fit as such becomes its digest."""
    fits = len(text) <= MAX_LABEL and re.fullmatch(r"[A-Za-z0-9]([\w.-]*[A-Za-z0-9])?", text, re.ASCII)
    return text if fits else hashlib.sha256(text.encode()).hexdigest()[:40]


def _slug(text: str, length: int) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower())[:length].strip("-")
