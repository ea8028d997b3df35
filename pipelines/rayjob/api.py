"""RayJobs and the logs of their pods through the Kubernetes API, with a limit on every request and on every wait."""

import io
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes
import tenacity
from kubernetes.client import ApiClient, ApiException, CoreV1Api, CustomObjectsApi
from kubernetes.watch import Watch
from urllib3.exceptions import HTTPError

from pipelines.rayjob.manifest import GROUP, PLURAL, VERSION
from yolo_core.errors import TryAgain, UserError

DEFAULT_CONFIG = Path("~/.kube/config")
OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
CONNECT_SECONDS, READ_SECONDS = 5, 20
PASSING = {429, 500, 502, 503, 504}  # a server that is busy, restarting or behind a proxy without it


class RayJobsApi:
    """The RayJobs of one namespace.

    patience: seconds to go on trying while the server cannot be reached or answers 5xx; then TryAgain.
    cancelled: once set, a wait ends early and nothing is tried again.
    """

    def __init__(
        self,
        namespace: str,
        client: ApiClient,
        *,
        patience: float = 300,
        cancelled: threading.Event | None = None,
    ) -> None:
        self.namespace = namespace
        self.patience = patience
        self.cancelled = cancelled or threading.Event()
        self._objects, self._core = CustomObjectsApi(client), CoreV1Api(client)
        self._place = (GROUP, VERSION, namespace, PLURAL)

    def find(self, labels: Mapping[str, str]) -> list[dict[str, Any]]:
        """The RayJobs that carry these labels."""
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        return self._call(self._objects.list_namespaced_custom_object, *self._place, label_selector=selector)["items"]

    def get(self, name: str) -> dict[str, Any] | None:
        try:
            return self._call(self._objects.get_namespaced_custom_object, *self._place, name)
        except ApiException as error:
            if error.status == 404:
                return None
            raise

    def create(self, manifest: Mapping[str, Any]) -> None:
        """Create it; one of that name that is there already stands, also one that a lost answer was about."""
        try:
            self._call(self._objects.create_namespaced_custom_object, *self._place, dict(manifest))
        except ApiException as error:
            if error.status == 404:
                raise UserError(f"namespace {self.namespace}: no RayJobs here; install the KubeRay operator") from None
            if error.status != 409:
                raise

    def delete(self, name: str, patience: float) -> None:
        """Delete it with its Ray cluster, trying for `patience` seconds; one that is not there is no error.

        Works on after `cancelled`: it is what is done then.
        """
        try:
            self._call(
                self._objects.delete_namespaced_custom_object,
                *self._place,
                name,
                propagation_policy="Background",
                _stop=tenacity.stop_after_delay(patience),
                _sleep=time.sleep,
            )
        except ApiException as error:
            if error.status != 404:
                raise

    def wait_for_change(self, name: str, version: str, seconds: float) -> None:
        """Return when the job is no longer as it was at this resourceVersion, or after about that many seconds.

        May return early: a watch that the server forgot or dropped says that something may have changed.
        """
        window = max(1, round(seconds))
        try:
            events = Watch().stream(
                self._objects.list_namespaced_custom_object,
                *self._place,
                field_selector=f"metadata.name={name}",
                resource_version=version,
                timeout_seconds=window,
                _request_timeout=(CONNECT_SECONDS, window + CONNECT_SECONDS),
            )
            next(iter(events), None)
        except (ApiException, HTTPError, OSError, ValueError):  # ValueError: half a line from a connection that broke
            self.cancelled.wait(min(seconds, 1))

    def pods(self, job: str) -> list[str]:
        """Names of the pods that KubeRay made to hand the command over, oldest first; they show what it prints."""
        found = self._call(self._core.list_namespaced_pod, self.namespace, label_selector=f"job-name={job}").items
        found.sort(key=lambda pod: str(pod.metadata.creation_timestamp))
        return [pod.metadata.name for pod in found]

    def log(self, pod: str, since_seconds: int | None) -> Iterator[str]:
        """Lines of a pod's log with their timestamps, of the last so many seconds or all of it; tried once."""
        given = {} if since_seconds is None else {"since_seconds": since_seconds}
        answer = self._core.read_namespaced_pod_log(
            pod,
            self.namespace,
            timestamps=True,
            _preload_content=False,
            _request_timeout=(CONNECT_SECONDS, READ_SECONDS),
            **given,
        )
        answer.auto_close = False  # or the wrapper finds it closed when the last line is read
        try:
            yield from io.TextIOWrapper(answer, encoding="utf-8", errors="replace")
        finally:
            answer.release_conn()

    def _call(
        self,
        function: Callable[..., Any],
        *args: Any,
        _stop: Any = None,
        _sleep: Callable[[float], None] | None = None,
        **kwargs: Any,
    ) -> Any:
        trying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_passes),
            wait=tenacity.wait_exponential_jitter(initial=0.2, max=15, jitter=0.2),
            stop=_stop or (tenacity.stop_after_delay(self.patience) | tenacity.stop_when_event_set(self.cancelled)),
            sleep=_sleep or tenacity.sleep_using_event(self.cancelled),
            reraise=True,
        )
        try:
            return trying(function, *args, _request_timeout=(CONNECT_SECONDS, READ_SECONDS), **kwargs)
        except ApiException as error:
            if error.status in (401, 403):
                raise UserError(
                    f"namespace {self.namespace}: Kubernetes refused ({error.status} {error.reason}); the service "
                    "account needs get, list, watch, create and delete of rayjobs.ray.io, list of pods, get of pods/log"
                ) from None
            if error.status in PASSING:
                raise TryAgain(f"Kubernetes API: {error.status} {error.reason} for {self.patience:g} s") from None
            raise
        except (HTTPError, OSError) as error:
            raise TryAgain(f"Kubernetes API: not reached for {self.patience:g} s ({error})") from None


def connect() -> ApiClient:
    """A client by KUBECONFIG or ~/.kube/config, else by the pod's own account. Raises UserError without either."""
    named = os.environ.get("KUBECONFIG")
    try:
        if named or DEFAULT_CONFIG.expanduser().exists():
            kubernetes.config.load_kube_config(named or str(DEFAULT_CONFIG.expanduser()))
        else:
            kubernetes.config.load_incluster_config()
    except (kubernetes.config.ConfigException, OSError) as error:
        raise UserError(f"no Kubernetes cluster: {error}; set KUBECONFIG, or run inside the cluster") from None
    configuration = kubernetes.client.Configuration.get_default_copy()
    configuration.retries = False  # pyright: ignore[reportAttributeAccessIssue] # RayJobsApi tries again itself, with a limit
    return ApiClient(configuration)


def own_namespace() -> str:
    """The namespace of the pod this process runs in. Raises UserError outside a pod."""
    if not OWN_NAMESPACE.exists():
        raise UserError(f"{OWN_NAMESPACE} is missing: steps that start RayJobs run in a pod")
    return OWN_NAMESPACE.read_text(encoding="utf-8").strip()


def _passes(error: BaseException) -> bool:
    return isinstance(error, HTTPError | OSError) or (isinstance(error, ApiException) and error.status in PASSING)
