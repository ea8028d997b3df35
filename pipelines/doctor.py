"""Checks of a platform that `infra/terraform` built: what its output `platform` names is there and answers.

They go through the APIs of Kubernetes and AWS, with the rights of whoever asks; services inside the cluster are seen by
whether pods stand behind them. Nothing is changed.
"""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kubernetes.client import ApiClient, ApiException, CoreV1Api, CustomObjectsApi, DiscoveryV1Api, VersionApi
from urllib3.exceptions import HTTPError

from components.doctor.machine import Check, Finding, check_bucket, check_image
from pipelines.rayjob.api import CONNECT_SECONDS, READ_SECONDS, connect
from pipelines.rayjob.resource import GROUP, PLURAL, VERSION
from yolo_core.errors import UserError

KUEUE = ("kueue.x-k8s.io", "v1beta2")
LIMIT: Any = {"_request_timeout": (CONNECT_SECONDS, READ_SECONDS)}


def of_platform(file: Path) -> Iterator[Check]:
    """The checks of the platform in a file. Raises UserError where it is not Terraform's output."""
    platform = _read(file)
    client = connect()
    core, objects = CoreV1Api(client), CustomObjectsApi(client)
    pipelines, training = platform["pipelines"], platform["training"]
    namespace, queue = pipelines["namespace"], training["queue"]
    yield "kubernetes", _asking(partial(_version, client), "aws eks update-kubeconfig --name NAME, or set KUBECONFIG")
    yield "kuberay", _asking(partial(_ray_jobs, objects, namespace), "install the KubeRay operator: terraform apply")
    yield "kueue", _asking(partial(_queue, objects, namespace, queue), "terraform apply makes the queue")
    for account in (pipelines["service_account"], training["service_account"]):
        yield f"account {account}", _asking(partial(_account, core, namespace, account), "terraform apply makes it")
    services = {"pipelines": pipelines["api_uri"], "mlflow": platform["mlflow"]["tracking_uri"]}
    for name, uri in {**services, "prometheus": platform["prometheus"]}.items():
        yield name, _asking(partial(_service, client, uri), "kubectl get pods and their events say why")
    for purpose, bucket in platform["buckets"].items():
        yield f"bucket {purpose}", partial(check_bucket, bucket)
    image = platform["image"]
    yield "image", partial(check_image, image["repository"], image["tag"], platform["region"])


def _read(file: Path) -> dict[str, Any]:
    """The platform; anything that lacks a part of it is refused with that part's name."""
    try:
        platform = json.loads(file.read_text(encoding="utf-8"))
        parts = {
            "pipelines": ("namespace", "service_account", "api_uri"),
            "training": ("queue", "service_account"),
            "mlflow": ("tracking_uri",),
            "image": ("repository", "tag"),
        }
        for part, keys in parts.items():
            for key in keys:
                platform[part][key]
        return {**platform, **{part: platform[part] for part in ("prometheus", "buckets", "region")}}
    except FileNotFoundError:
        raise UserError(f"{file}: not there; `terraform output -json platform > {file.name}` writes it") from None
    except (OSError, ValueError, RecursionError, TypeError, KeyError) as error:
        raise UserError(
            f"{file}: not a platform ({type(error).__name__}: {error}); `terraform output -json platform` writes one"
        ) from None


def _asking(check: Callable[[], str], mend: str) -> Callable[[], Finding]:
    """The check as a finding, whatever the services answer."""

    def find() -> Finding:
        try:
            return Finding(True, check())
        except ApiException as error:
            return Finding(False, f"Kubernetes answers {error.status} {error.reason}", mend)
        except (HTTPError, OSError) as error:
            return Finding(False, f"Kubernetes cannot be reached ({type(error).__name__})", mend)
        except LookupError as error:
            return Finding(False, str(error.args[0]), mend)

    return find


def _version(client: ApiClient) -> str:
    answer: Any = VersionApi(client).get_code(**LIMIT)
    return f"version {answer.git_version} answers"


def _ray_jobs(objects: CustomObjectsApi, namespace: str) -> str:
    found = objects.list_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL, limit=1, **LIMIT)
    return f"RayJobs are known in {namespace}{', there are some' if found['items'] else ''}"


def _queue(objects: CustomObjectsApi, namespace: str, queue: str) -> str:
    objects.get_namespaced_custom_object(*KUEUE, namespace, "localqueues", queue, **LIMIT)
    return f"queue {queue} in {namespace}"


def _account(core: CoreV1Api, namespace: str, account: str) -> str:
    core.read_namespaced_service_account(account, namespace, **LIMIT)
    return f"in {namespace}"


def _service(client: ApiClient, uri: str) -> str:
    """http://NAME.NAMESPACE.svc...: are there pods behind it that are ready?"""
    name, namespace, *_ = [*(urlsplit(uri).hostname or "").split("."), "", ""]
    own = {"label_selector": f"kubernetes.io/service-name={name}"}
    slices = DiscoveryV1Api(client).list_namespaced_endpoint_slice(namespace, **own, **LIMIT).items
    ready = sum(pod.conditions.ready is not False for one in slices for pod in one.endpoints or [])
    if not ready:
        raise LookupError(f"no pod of the service {name} in {namespace} is ready")
    return f"{uri}, {ready} ready"
