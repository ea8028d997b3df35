"""Manifests of RayJobs (KubeRay, ray.io/v1): one stage's command on a Ray cluster that exists as long as it runs.

Pure functions from a description to the manifest. `pipelines.rayjob.runner` creates the job and follows it.
"""

import hashlib
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from components import telemetry
from pipelines.rayjob.resource import GROUP, VERSION
from pipelines.rayjob.sizes import GPU, JobSize
from pipelines.secret import SECRET

Json = dict[str, object]  # an object of the manifest

APP = "scaled-yolov4"
RUN_LABEL, STEP_LABEL, ATTEMPT_LABEL = (f"{APP}/{name}" for name in ("run", "step", "attempt"))
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
MAX_NAME = 47  # KubeRay derives longer names from it: pods, services, the cluster
MAX_LABEL = 63

STOP_SECONDS = 90  # between SIGTERM and SIGKILL of Ray's processes: time for a checkpoint
POD_STOP_SECONDS = STOP_SECONDS + 30
DAY = 86_400
HEAD_CPUS, HEAD_MEMORY = 4, 16  # GiB; for Ray's services and the driver; no trials, no training
OBJECT_STORE_SHARE = 4  # Ray's object store takes 1 / this of /dev/shm; the rest is for loaders and NCCL
GIB = 2**30

# Keep the cluster autoscaler and Karpenter from evicting a working pod to consolidate nodes.
NO_EVICTION = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false", "karpenter.sh/do-not-disrupt": "true"}


@dataclass(frozen=True)
class RayJob:
    """What to run, where, and on which nodes. The name follows from run, step and attempt."""

    run: str
    """Id of the pipeline run."""

    step: str
    """Name of the step, unique within the run."""

    command: Sequence[str]
    """Arguments of the entrypoint, which runs on the head."""

    image: str
    size: JobSize
    """The GPU workers at most."""

    ray_version: str
    namespace: str
    attempt: int = 1
    min_nodes: int | None = None
    """GPU nodes from the start; None: all of them."""

    queue: str = ""
    """Kueue's LocalQueue, which starts all pods or none; the number of nodes is then fixed."""

    secret: str = SECRET
    """Its keys become environment variables of every pod; it may be absent."""

    environment: Mapping[str, str] = field(default_factory=dict)
    """Further environment variables of every pod."""

    node_selector: Mapping[str, str] = field(default_factory=dict)
    """Labels that GPU nodes must have."""

    service_account: str = ""
    """Service account of the Ray pods; empty: the namespace's default."""

    deadline: int = 14 * DAY
    """Longest run time, in seconds."""

    start_within: int = DAY
    """Longest wait until its pods run, in seconds."""

    ttl: int = 60
    """Seconds that its nodes are kept after the end; the RayJob itself stays until it is deleted."""

    @property
    def name(self) -> str:
        return job_name(self.run, self.step, self.attempt)

    @property
    def labels(self) -> dict[str, str]:
        """Labels of the job and all its pods, for searches and PodDisruptionBudgets."""
        return {"app.kubernetes.io/name": APP, **identity(self.run, self.step), ATTEMPT_LABEL: str(self.attempt)}


def job_name(run: str, step: str, attempt: int) -> str:
    """The job's name, determined by its arguments; a DNS label that starts with a letter."""
    digest = hashlib.sha256(f"{run}\n{step}".encode()).hexdigest()[:10]
    ending = f"-{digest}-{attempt}"
    return f"{_slug(f'job-{step}', MAX_NAME - len(ending))}{ending}"


def identity(run: str, step: str) -> dict[str, str]:
    """The labels that find the jobs of this step of this run."""
    return {RUN_LABEL: _label(run), STEP_LABEL: _label(step)}


def manifest(job: RayJob) -> Json:
    """The RayJob. KubeRay deletes the Ray cluster when the command ends.

    It does not retry: only the creator of the job can tell a user's mistake from a lost node.
    """
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
            "suspend": bool(job.queue),  # Kueue resumes it once there is room for all its pods
            "submissionMode": "K8sJobMode",
            "submitterConfig": {"backoffLimit": 3},  # retries of the submission, not of the command
            "submitterPodTemplate": _submitter(job),
            "backoffLimit": 0,
            "activeDeadlineSeconds": job.deadline,
            "preRunningDeadlineSeconds": job.start_within,
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": job.ttl,
            "rayClusterSpec": _cluster(job),
        },
    }


def _cluster(job: RayJob) -> Json:
    autoscaling = not job.queue and job.min_nodes is not None and job.min_nodes < job.size.nodes
    started = job.min_nodes if autoscaling and job.min_nodes is not None else job.size.nodes
    return {
        "rayVersion": job.ray_version,
        "authOptions": {"mode": "token"},  # KubeRay creates a token for this cluster alone
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
    }


AUTOSCALER = {
    "version": "v2",
    "idleTimeoutSeconds": 120,
    "resources": {"requests": {"cpu": "200m", "memory": "512Mi"}, "limits": {"memory": "512Mi"}},
}


def _pod(job: RayJob, container: Json, shm: Json, *, gpu: bool = False) -> Json:
    spec: Json = {
        "restartPolicy": "Never",  # a Ray node cannot rejoin after a restart
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
    return {"metadata": {"labels": job.labels, "annotations": dict(NO_EVICTION)}, "spec": spec}


def _head(job: RayJob) -> Json:
    return {
        **_ray_container(job, "ray-head", HEAD_CPUS, HEAD_MEMORY),
        "ports": [
            {"containerPort": port, "name": name}
            for port, name in ((6379, "gcs"), (8265, "dashboard"), (10001, "client"))
        ],
        **_probes("/api/gcs_healthz", 8265),
    }


def _worker(job: RayJob) -> Json:
    return {
        **_ray_container(job, "ray-worker", job.size.cpus, job.size.memory, job.size.gpus),
        **_probes("/api/local_raylet_healthz", 52365),
    }


def _ray_container(job: RayJob, name: str, cpus: int, memory: int, gpus: int = 0) -> Json:
    share = {"cpu": str(cpus), "memory": f"{memory}Gi", **({GPU: str(gpus)} if gpus else {})}
    return {
        **_container(job, name),
        "resources": {"requests": dict(share), "limits": dict(share)},
        "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}],
        # `ray stop` sends SIGTERM to Ray's workers and waits; Kubernetes sends its own SIGTERM afterwards.
        "lifecycle": {"preStop": {"exec": {"command": ["ray", "stop", "--grace-period", str(STOP_SECONDS)]}}},
    }


def _submitter(job: RayJob) -> Json:
    """The pod that submits the command to Ray and prints its output."""
    container = {
        **_container(job, "submitter"),
        "resources": {"requests": {"cpu": "200m", "memory": "512Mi"}, "limits": {"memory": "512Mi"}},
    }
    spec = {"restartPolicy": "Never", "containers": [container]}
    return {"metadata": {"labels": job.labels, "annotations": dict(NO_EVICTION)}, "spec": spec}


def _container(job: RayJob, name: str) -> Json:
    return {
        "name": name,
        "image": job.image,
        "env": [{"name": key, "value": value} for key, value in {**telemetry.OFF, **job.environment}.items()],
        "envFrom": [{"secretRef": {"name": job.secret, "optional": True}}],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }


def _shm(gib: int) -> Json:
    return {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": f"{gib}Gi"}}


def _probes(path: str, port: int) -> Json:
    """Replaces KubeRay's probes, which need wget in the image. Liveness is patient: a busy node is not a dead one."""
    request = {"httpGet": {"path": path, "port": port}, "timeoutSeconds": 5}
    return {
        "readinessProbe": {**request, "initialDelaySeconds": 10, "periodSeconds": 5, "failureThreshold": 10},
        "livenessProbe": {**request, "initialDelaySeconds": 30, "periodSeconds": 10, "failureThreshold": 60},
    }


def _label(text: str) -> str:
    """The text as a label value; a text that is not a valid one is replaced by its digest."""
    fits = len(text) <= MAX_LABEL and re.fullmatch(r"[A-Za-z0-9]([\w.-]*[A-Za-z0-9])?", text, re.ASCII)
    return text if fits else hashlib.sha256(text.encode()).hexdigest()[:40]


def _slug(text: str, length: int) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower())[:length].strip("-")
