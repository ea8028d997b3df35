"""A RayJob as the Kubernetes API returns it: the fields that are read here, under their names in KubeRay's schema."""

from typing import NotRequired, TypedDict

GROUP, VERSION, PLURAL = "ray.io", "v1", "rayjobs"


class Metadata(TypedDict):
    name: str
    labels: dict[str, str]
    resourceVersion: str
    creationTimestamp: str
    deletionTimestamp: NotRequired[str]


class ClusterStatus(TypedDict, total=False):
    desiredWorkerReplicas: int
    readyWorkerReplicas: int


class Status(TypedDict, total=False):
    jobDeploymentStatus: str
    """KubeRay's status: Initializing, Running, Suspended, Complete, Failed, ...; empty before KubeRay saw the job."""

    jobStatus: str
    """Ray's status: PENDING, RUNNING, STOPPED, SUCCEEDED, FAILED."""

    reason: str
    message: str
    rayClusterStatus: ClusterStatus


class RayJobResource(TypedDict):
    metadata: Metadata
    status: NotRequired[Status]
