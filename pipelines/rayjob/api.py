"""RayJobs and the logs of their pods through the Kubernetes API, with a timeout on every request and every wait."""

import io
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import kubernetes
import tenacity
from kubernetes.client import ApiClient, ApiException, CoreV1Api, CustomObjectsApi
from kubernetes.watch import Watch
from urllib3.exceptions import HTTPError

from pipelines.rayjob.resource import GROUP, PLURAL, VERSION, RayJobResource
from yolo_core.errors import TryAgain, UserError

if TYPE_CHECKING:
    from kubernetes.client import V1Pod
    from tenacity.stop import stop_base

DEFAULT_CONFIG = Path("~/.kube/config")
OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
TIMEOUTS = (5, 20)  # seconds to connect and to read
TRANSIENT = {429, 500, 502, 503, 504}  # a server that is busy or restarting, or a proxy that has lost it

T = TypeVar("T")


class RayJobsApi:
    """The RayJobs of one namespace.

    retry_for: seconds to retry while the server cannot be reached or answers 5xx; then TryAgain.
    cancelled: once set, waits end early and nothing is retried.
    """

    def __init__(
        self,
        namespace: str,
        client: ApiClient,
        *,
        retry_for: float = 300,
        cancelled: threading.Event | None = None,
    ) -> None:
        self.namespace = namespace
        self.retry_for = retry_for
        self.cancelled = cancelled or threading.Event()
        self._objects, self._core = CustomObjectsApi(client), CoreV1Api(client)
        self._kind = (GROUP, VERSION, namespace, PLURAL)

    def find(self, labels: Mapping[str, str]) -> list[RayJobResource]:
        """The RayJobs that carry these labels."""
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        return self._call(self._objects.list_namespaced_custom_object, *self._kind, label_selector=selector)["items"]

    def get(self, name: str) -> RayJobResource | None:
        try:
            found: Any = self._call(self._objects.get_namespaced_custom_object, *self._kind, name)
        except ApiException as error:
            if error.status == 404:
                return None
            raise
        return found

    def create(self, manifest: Mapping[str, object]) -> None:
        """Create the job. One of this name that exists already is kept: an earlier answer may have been lost."""
        try:
            self._call(self._objects.create_namespaced_custom_object, *self._kind, dict(manifest))
        except ApiException as error:
            if error.status == 404:
                raise UserError(
                    f"namespace {self.namespace}: does not support RayJobs; install the KubeRay operator"
                ) from None
            if error.status != 409:
                raise

    def delete(self, name: str, retry_for: float) -> None:
        """Delete the job and its Ray cluster, retrying for `retry_for` seconds; a missing one is no error.

        `cancelled` does not stop it, because a cancelled job is deleted.
        """
        try:
            self._call(
                self._objects.delete_namespaced_custom_object,
                *self._kind,
                name,
                propagation_policy="Background",
                _stop=tenacity.stop_after_delay(retry_for),
                _sleep=time.sleep,
            )
        except ApiException as error:
            if error.status != 404:
                raise

    def wait_for_change(self, name: str, version: str, seconds: float) -> None:
        """Return once the job differs from this resourceVersion, or after about `seconds`.

        May return early: a watch that the server dropped means that something may have changed.
        """
        window = max(1, round(seconds))
        try:
            events = Watch().stream(
                self._objects.list_namespaced_custom_object,
                *self._kind,
                field_selector=f"metadata.name={name}",
                resource_version=version,
                timeout_seconds=window,
                _request_timeout=(TIMEOUTS[0], window + TIMEOUTS[0]),
            )
            next(iter(events), None)
        except (ApiException, HTTPError, OSError, ValueError):  # ValueError: half a line from a broken connection
            self.cancelled.wait(min(seconds, 1))

    def pods(self, job: str) -> list[str]:
        """Names of the submitter pods, oldest first; their logs carry the command's output."""
        found: list[V1Pod] = self._call(
            self._core.list_namespaced_pod, self.namespace, label_selector=f"job-name={job}"
        ).items
        described = [pod.metadata for pod in found if pod.metadata]
        return [str(pod.name) for pod in sorted(described, key=lambda pod: str(pod.creation_timestamp))]

    def log(self, pod: str, since_seconds: int | None) -> Iterator[str]:
        """Lines of a pod's log with timestamps: those of the last `since_seconds`, or all. Not retried."""
        given = {} if since_seconds is None else {"since_seconds": since_seconds}
        answer = self._core.read_namespaced_pod_log(
            pod,
            self.namespace,
            timestamps=True,
            _preload_content=False,
            _request_timeout=TIMEOUTS,
            **given,
        )
        answer.auto_close = False  # otherwise it is closed before TextIOWrapper reads the last line
        try:
            yield from io.TextIOWrapper(answer, encoding="utf-8", errors="replace")
        finally:
            answer.release_conn()

    def _call(
        self,
        function: Callable[..., T],
        *args: object,
        _stop: "stop_base | None" = None,
        _sleep: Callable[[float], None] | None = None,
        **kwargs: object,
    ) -> T:
        """The answer, after retries; every final failure but an unexpected ApiException becomes one of our errors."""
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_is_transient),
            wait=tenacity.wait_exponential_jitter(initial=0.2, max=15, jitter=0.2),
            stop=_stop or (tenacity.stop_after_delay(self.retry_for) | tenacity.stop_when_event_set(self.cancelled)),
            sleep=_sleep or tenacity.sleep_using_event(self.cancelled),
            reraise=True,
        )
        try:
            return retrying(function, *args, _request_timeout=TIMEOUTS, **kwargs)
        except ApiException as error:
            if error.status in (401, 403):
                raise UserError(
                    f"namespace {self.namespace}: Kubernetes refused ({error.status} {error.reason}); the service "
                    "account needs get, list, watch, create and delete on rayjobs.ray.io, list on pods, get on pods/log"
                ) from None
            if error.status in TRANSIENT:
                raise TryAgain(f"Kubernetes API: {error.status} {error.reason} for {self.retry_for:g} s") from None
            raise
        except (HTTPError, OSError) as error:
            raise TryAgain(f"Kubernetes API: unreachable for {self.retry_for:g} s ({error})") from None


def connect() -> ApiClient:
    """A client configured by KUBECONFIG or ~/.kube/config, else by the pod's account. Raises UserError without one."""
    named = os.environ.get("KUBECONFIG")
    try:
        if named or DEFAULT_CONFIG.expanduser().exists():
            kubernetes.config.load_kube_config(named or str(DEFAULT_CONFIG.expanduser()))
        else:
            kubernetes.config.load_incluster_config()
    except (kubernetes.config.ConfigException, OSError) as error:
        raise UserError(f"no Kubernetes cluster: {error}; set KUBECONFIG, or run inside the cluster") from None
    configuration = kubernetes.client.Configuration.get_default_copy()
    configuration.retries = False  # pyright: ignore[reportAttributeAccessIssue] # RayJobsApi retries, with a limit
    return ApiClient(configuration)


def own_namespace() -> str:
    """The namespace of the pod this process runs in. Raises UserError outside a pod."""
    if not OWN_NAMESPACE.exists():
        raise UserError(f"{OWN_NAMESPACE} is missing: steps that start RayJobs run in a pod")
    return OWN_NAMESPACE.read_text(encoding="utf-8").strip()


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, HTTPError | OSError) or (isinstance(error, ApiException) and error.status in TRANSIENT)
