"""A Kubernetes API server for tests of RayJobs: objects in memory behind the real HTTP interface.

It checks what it is given against the CRD's schema, serves list, get, create, delete, watch and pod logs, and fails on
demand. Tests play KubeRay's part through `status`, `log` and `let_go`.
"""

import copy
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import yaml
from loopback import LoopbackServer, Request
from waiting import LIMIT_S

JOBS = re.compile(r"/apis/ray\.io/v1/namespaces/(?P<namespace>[^/]+)/rayjobs(/(?P<name>[^/]+))?")
PODS = re.compile(r"/api/v1/namespaces/(?P<namespace>[^/]+)/pods(/(?P<name>[^/]+)/log)?")

Check = Callable[[dict[str, Any]], list[str]]  # problems of an object, empty if valid


@dataclass
class KubernetesServer(LoopbackServer):
    """check: problems of a RayJob that is created."""

    check: Check = lambda _: []
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    logs: dict[str, list[tuple[float, str]]] = field(default_factory=dict)  # pod -> (time, line)
    finalizer: bool = False  # deleted objects stay, marked, until `let_go`
    version: int = 100
    forgotten: int = 0  # watches from versions before this one are refused
    events: list[tuple[int, str, dict[str, Any]]] = field(default_factory=list)

    def kubeconfig(self, path: Path, namespace: str = "default") -> Path:
        """A kubeconfig file for this server."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {"server": self.url}}],
            "users": [{"name": "test", "user": {"token": "t"}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}],
            "current-context": "test",
        }
        path.write_text(yaml.safe_dump(config))
        return path

    # KubeRay's part

    def wait_for_job(self, number: int = 1) -> str:
        """The name of the newest job, once there are that many."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.jobs) >= number, LIMIT_S), "no job was created"
            return list(self.jobs)[-1]

    def status(self, name: str, **status: Any) -> None:
        with self.changed:
            job = self.jobs[name]
            job.setdefault("status", {}).update(status)
            self._event("MODIFIED", job)

    def log(self, job: str, *lines: str) -> None:
        """Lines of the pod that KubeRay creates to submit the job."""
        with self.changed:
            self.logs.setdefault(f"{job}-submit", []).extend((time.time(), line) for line in lines)

    def let_go(self, name: str) -> None:
        """Remove an object that is marked as deleted, as its finalizer does in the end."""
        with self.changed:
            self._event("DELETED", self.jobs.pop(name))

    def forget(self) -> None:
        """Forget old versions: watches from them get 410 Gone."""
        with self.changed:
            self.version += 1
            self.forgotten = self.version

    # The HTTP interface

    def respond(self, request: Request) -> tuple[int, Any]:
        if found := JOBS.fullmatch(request.path):
            return self._jobs(request.method, found["namespace"], found["name"], request.query, request.body)
        if (found := PODS.fullmatch(request.path)) and request.method == "GET":
            return self._log(found["name"], request.query) if found["name"] else self._pods(request.query)
        return 404, self.failure(404, "the server could not find the requested resource")

    def stream(self, request: Request, handler: BaseHTTPRequestHandler) -> bool:
        if request.query.get("watch", "").lower() != "true":
            return False
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for kind, content in self._changes(int(request.query.get("resourceVersion") or 0), request.query):
            line = json.dumps({"type": kind, "object": content}).encode() + b"\n"
            handler.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
            handler.wfile.flush()
        handler.wfile.write(b"0\r\n\r\n")
        return True

    def failure(self, code: int, message: str, reason: str = "Failure") -> dict[str, Any]:
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure"}
        return {**status, "code": code, "reason": reason, "message": message}

    def _jobs(
        self, method: str, namespace: str, name: str | None, query: dict[str, str], body: bytes
    ) -> tuple[int, Any]:
        if method == "POST":
            return self._create(namespace, json.loads(body))
        if name is None:
            items = [job for job in self.jobs.values() if _selected(job, query)]
            return 200, {"kind": "RayJobList", "metadata": {"resourceVersion": str(self.version)}, "items": items}
        if name not in self.jobs:
            return 404, self.failure(404, f'rayjobs.ray.io "{name}" not found')
        if method == "DELETE":
            return self._delete(name)
        return 200, self.jobs[name]

    def _create(self, namespace: str, job: dict[str, Any]) -> tuple[int, Any]:
        name = job["metadata"]["name"]
        if job["metadata"].get("namespace", namespace) != namespace:
            return 400, self.failure(400, "the namespace of the object does not match the request")
        if problems := self.check(job):
            return 422, self.failure(422, "; ".join(problems))
        if name in self.jobs:
            return 409, self.failure(409, f'rayjobs.ray.io "{name}" already exists', "AlreadyExists")
        job["metadata"]["creationTimestamp"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self.jobs[name] = job
        self._event("ADDED", job)
        return 201, job

    def _delete(self, name: str) -> tuple[int, Any]:
        if self.finalizer:
            self.jobs[name]["metadata"]["deletionTimestamp"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            self._event("MODIFIED", self.jobs[name])
        else:
            self._event("DELETED", self.jobs.pop(name))
        return 200, {"kind": "Status", "apiVersion": "v1", "status": "Success"}

    def _pods(self, query: dict[str, str]) -> tuple[int, Any]:
        items = []
        for pod in self.logs:
            labels = {"job-name": pod.removesuffix("-submit")}
            item = {"metadata": {"name": pod, "labels": labels, "creationTimestamp": "2026-01-01T00:00:00Z"}}
            if _selected(item, query):
                items.append(item)
        return 200, {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}

    def _log(self, pod: str, query: dict[str, str]) -> tuple[int, Any]:
        if pod not in self.logs:
            return 404, self.failure(404, f'pods "{pod}" not found')
        oldest = time.time() - float(query.get("sinceSeconds", "inf"))
        stamped = query.get("timestamps", "").lower() == "true"
        return 200, "".join(
            (f"{_nanoseconds(when)} " if stamped else "") + f"{line}\n"
            for when, line in self.logs[pod]
            if when >= oldest
        )

    def _changes(self, after: int, query: dict[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
        if after < self.forgotten:
            yield "ERROR", self.failure(410, f"too old resource version: {after} ({self.forgotten})", "Expired")
            return
        deadline = time.monotonic() + float(query.get("timeoutSeconds", "1800"))
        while not self.over:
            with self.changed:
                new = [event for event in self.events if event[0] > after]
                if not new and not self.changed.wait(max(0, deadline - time.monotonic())):
                    return
            for version, kind, job in new:
                after = version
                if _selected(job, query):
                    yield kind, job

    def _event(self, kind: str, job: dict[str, Any]) -> None:
        self.version += 1
        job["metadata"]["resourceVersion"] = str(self.version)
        self.events.append((self.version, kind, copy.deepcopy(job)))
        self.changed.notify_all()


def _selected(item: dict[str, Any], query: dict[str, str]) -> bool:
    """By labelSelector and fieldSelector, of equalities only."""
    metadata = item["metadata"]
    labels = dict(pair.split("=", 1) for pair in query.get("labelSelector", "").split(",") if pair)
    fields = dict(pair.split("=", 1) for pair in query.get("fieldSelector", "").split(",") if pair)
    return all(metadata.get("labels", {}).get(key) == value for key, value in labels.items()) and all(
        metadata[key.removeprefix("metadata.")] == value for key, value in fields.items()
    )


def _nanoseconds(when: float) -> str:
    """RFC 3339 with a fraction as Go prints it: without trailing zeros."""
    fraction = f"{when % 1:.9f}"[1:].rstrip("0").rstrip(".")
    return datetime.fromtimestamp(int(when), UTC).strftime("%Y-%m-%dT%H:%M:%S") + fraction + "Z"
