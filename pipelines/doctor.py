"""Checks that everything named in the output `platform` of `infra/terraform` exists and answers.

They use the APIs of Kubernetes and AWS with the caller's rights. A service inside the cluster counts as running if it
has ready pods. Nothing is changed.
"""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict
from urllib.parse import urlsplit

from kubernetes.client import ApiClient, ApiException, CoreV1Api, CustomObjectsApi, DiscoveryV1Api, VersionApi
from urllib3.exceptions import HTTPError

from components.doctor.aws import check_bucket, check_image
from components.doctor.checks import Check, Finding
from pipelines.rayjob.api import TIMEOUTS, connect
from pipelines.rayjob.resource import GROUP, PLURAL, VERSION
from yolo_core.errors import UserError

if TYPE_CHECKING:
    from kubernetes.client import V1EndpointSlice

KUEUE = ("kueue.x-k8s.io", "v1beta2")


class Pipelines(TypedDict):
    namespace: str
    service_account: str
    api_uri: str


class Training(TypedDict):
    queue: str
    service_account: str


class MLflow(TypedDict):
    tracking_uri: str


class Image(TypedDict):
    repository: str
    tag: str


class Platform(TypedDict):
    """The parts of Terraform's output `platform` that are checked."""

    pipelines: Pipelines
    training: Training
    mlflow: MLflow
    image: Image
    prometheus: str
    buckets: dict[str, str]
    """Names by purpose."""

    region: str


def of_platform(file: Path) -> Iterator[Check]:
    """The checks of the platform in a file. Raises UserError if it is not Terraform's output."""
    platform = _read(file)
    client = connect()
    core, objects = CoreV1Api(client), CustomObjectsApi(client)
    pipelines, training = platform["pipelines"], platform["training"]
    namespace, queue = pipelines["namespace"], training["queue"]
    yield "kubernetes", _finding(partial(_version, client), "aws eks update-kubeconfig --name NAME, or set KUBECONFIG")
    yield "kuberay", _finding(partial(_ray_jobs, objects, namespace), "install the KubeRay operator: terraform apply")
    yield "kueue", _finding(partial(_queue, objects, namespace, queue), "terraform apply creates the queue")
    for account in (pipelines["service_account"], training["service_account"]):
        yield f"account {account}", _finding(partial(_account, core, namespace, account), "terraform apply creates it")
    services = {"pipelines": pipelines["api_uri"], "mlflow": platform["mlflow"]["tracking_uri"]}
    for name, uri in {**services, "prometheus": platform["prometheus"]}.items():
        yield name, _finding(partial(_service, client, uri), "kubectl get pods, and their events, show why")
    for purpose, bucket in platform["buckets"].items():
        yield f"bucket {purpose}", partial(check_bucket, bucket)
    image = platform["image"]
    yield "image", partial(check_image, image["repository"], image["tag"], platform["region"])


def _read(file: Path) -> Platform:
    """The platform. Raises UserError with the name of the first missing part."""
    try:
        platform = json.loads(file.read_text(encoding="utf-8"))
        for part, record in {"pipelines": Pipelines, "training": Training, "mlflow": MLflow, "image": Image}.items():
            for key in record.__annotations__:
                platform[part][key]
        for part in ("prometheus", "buckets", "region"):
            platform[part]
        return platform
    except FileNotFoundError:
        raise UserError(f"{file}: missing; `terraform output -json platform > {file.name}` writes it") from None
    except (OSError, ValueError, RecursionError, TypeError, KeyError) as error:
        raise UserError(
            f"{file}: not a platform ({type(error).__name__}: {error}); `terraform output -json platform` writes one"
        ) from None


def _finding(check: Callable[[], str], fix: str) -> Callable[[], Finding]:
    """The check as a finding, whatever the services answer."""

    def find() -> Finding:
        try:
            return Finding(True, check())
        except ApiException as error:
            return Finding(False, f"Kubernetes answered {error.status} {error.reason}", fix)
        except (HTTPError, OSError) as error:
            return Finding(False, f"Kubernetes cannot be reached ({type(error).__name__})", fix)
        except LookupError as error:
            return Finding(False, str(error.args[0]), fix)

    return find


def _version(client: ApiClient) -> str:
    answer: Any = VersionApi(client).get_code(_request_timeout=TIMEOUTS)
    return f"version {answer.git_version}"


def _ray_jobs(objects: CustomObjectsApi, namespace: str) -> str:
    found = objects.list_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL, limit=1, _request_timeout=TIMEOUTS)
    return f"RayJobs are supported in {namespace}{', some exist' if found['items'] else ''}"


def _queue(objects: CustomObjectsApi, namespace: str, queue: str) -> str:
    objects.get_namespaced_custom_object(*KUEUE, namespace, "localqueues", queue, _request_timeout=TIMEOUTS)
    return f"queue {queue} in {namespace}"


def _account(core: CoreV1Api, namespace: str, account: str) -> str:
    core.read_namespaced_service_account(account, namespace, _request_timeout=TIMEOUTS)
    return f"in {namespace}"


def _service(client: ApiClient, uri: str) -> str:
    """Whether http://NAME.NAMESPACE.svc... has ready pods."""
    name, namespace, *_ = [*(urlsplit(uri).hostname or "").split("."), "", ""]
    own = {"label_selector": f"kubernetes.io/service-name={name}"}
    slices: list[V1EndpointSlice] = (
        DiscoveryV1Api(client).list_namespaced_endpoint_slice(namespace, **own, _request_timeout=TIMEOUTS).items
    )
    ready = sum(pod.conditions.ready is not False for one in slices for pod in one.endpoints or [])
    if not ready:
        raise LookupError(f"no pod of the service {name} in {namespace} is ready")
    return f"{uri}, {ready} ready"
