"""A connection to a Kubeflow Pipelines server: `kfp.Client` with timeouts, retries and one-line errors."""

import contextlib
import io
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TypeVar

import kfp
import tenacity
from kfp_server_api import ApiException, V2beta1GetHealthzResponse, V2beta1Pipeline
from urllib3.exceptions import HTTPError

from yolo_core.errors import TryAgain, UserError

TIMEOUTS = (5, 60)  # seconds to connect and to read
TRANSIENT = {409, 429, 500, 502, 503, 504}  # 409: someone creates the same object; the next look finds it
IN_CLUSTER, KUBECONFIG = "KUBERNETES_SERVICE_HOST", Path("~/.kube/config")

P = ParamSpec("P")
T = TypeVar("T")


class _Page(Protocol):
    @property
    def next_page_token(self) -> str | None: ...


PageT = TypeVar("PageT", bound=_Page)


class ClientWithTimeouts(kfp.Client):
    """kfp's own client has no request timeout, and tries five times to learn the server's health."""

    def __init__(self, host: str = "", namespace: str = "", token: str = "") -> None:
        super().__init__(host or None, namespace=namespace or "kubeflow", existing_token=token or None)
        rest = self._run_api.api_client.rest_client  # shared by all its interfaces
        request = rest.request

        def request_with_timeout(*args: Any, **kwargs: Any) -> object:  # untyped in kfp
            return request(*args, **{**kwargs, "_request_timeout": kwargs.get("_request_timeout") or TIMEOUTS})

        rest.request = request_with_timeout

    def get_kfp_healthz(self, sleep_duration: int = 5) -> V2beta1GetHealthzResponse:
        health: Any = self._healthz_api.healthz_service_get_healthz(_request_timeout=TIMEOUTS)
        return health

    def create_empty_pipeline(self, name: str) -> V2beta1Pipeline:
        """A pipeline without versions, which kfp's client does not offer."""
        pipeline = V2beta1Pipeline(name=name, display_name=name)
        created: Any = self._pipelines_api.pipeline_service_create_pipeline(pipeline)
        return created


class Connection:
    """retry_limit_s: how long to retry while the server cannot be reached or answers 5xx; then TryAgain."""

    def __init__(self, host: str = "", namespace: str = "", token: str = "", *, retry_limit_s: float = 15) -> None:
        """Connect. Without a host: as kfp does, by the pod's own account or by the kubeconfig.

        Raises UserError when no server is named or the token is refused, TryAgain when the server is unavailable.
        """
        if not host and not os.environ.get(IN_CLUSTER) and not KUBECONFIG.expanduser().exists():
            raise UserError("no Kubeflow server: give --host URL, or set KFP_ENDPOINT")
        if host and not host.startswith("http"):
            raise UserError(f"--host {host}: expected an address such as http://localhost:8080")
        self.retry_limit_s, self.host = retry_limit_s, host
        self._client = self._call(ClientWithTimeouts, host, namespace, token)

    def _call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call, retry transient failures, and raise what remains as UserError or TryAgain."""
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_is_transient),
            wait=tenacity.wait_exponential_jitter(initial=0.2, max=10, jitter=0.2),
            stop=tenacity.stop_after_delay(self.retry_limit_s),
            reraise=True,
        )
        try:
            with _quiet():
                return retrying(function, *args, **kwargs)
        except ApiException as error:
            raise self._explained(error) from None
        except (HTTPError, OSError) as error:
            raise TryAgain(f"Kubeflow at {self.host or 'the cluster'}: unreachable ({_reason(error)})") from None

    def _find_or_create(self, find: Callable[[], T | None], create: Callable[[], T]) -> T:
        """Looks again before each retry, so that a lost answer does not create a second object."""
        return self._call(lambda: find() or create())

    def _all_pages(self, page: Callable[[str], PageT], items: Callable[[PageT], list[T] | None]) -> list[T]:
        """The items of all pages. page: from a page token, empty for the first one."""
        found: list[T] = []
        token = ""
        while True:
            answer = self._call(page, token)
            found += items(answer) or []
            token = answer.next_page_token or ""
            if not token:
                return found

    def _explained(self, error: ApiException) -> UserError:
        where = f"Kubeflow at {self.host or 'the cluster'}: {error.status} {error.reason}"
        if error.status in TRANSIENT:
            return TryAgain(f"{where} for {self.retry_limit_s:g} s")
        if error.status in (401, 403):
            return UserError(f"{where}; give a valid token with --token or KFP_EXISTING_TOKEN")
        return UserError(f"{where}: {_message(error)}")


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, HTTPError | OSError) or (isinstance(error, ApiException) and error.status in TRANSIENT)


def _message(error: ApiException) -> str:
    """The server's message, on one line."""
    body = error.body.decode(errors="replace") if isinstance(error.body, bytes) else str(error.body)
    try:
        content = json.loads(body)
        body = content.get("message") or content.get("error") or body
    except (ValueError, AttributeError):
        pass
    return " ".join(str(body).split())[:300]


def _reason(error: BaseException) -> str:
    """The innermost cause, on one line."""
    inner = getattr(error, "reason", None)
    return _reason(inner) if isinstance(inner, BaseException) else " ".join(str(error).split())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the client's prints, warnings and log lines; the caller reports."""
    before = logging.root.manager.disable
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)
