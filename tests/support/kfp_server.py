"""A Kubeflow Pipelines server for tests: the endpoints of v2beta1 that the client uses, with their state in memory.

It checks the bodies it is given against the API's swagger where available, and fails on demand. A run stays where
it is until the test moves it (`advance`), or runs for real under KFP's local runner (`execute`).
"""

import email
import email.policy
import itertools
import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import yaml
from loopback import LoopbackServer, Request

API = "/apis/v2beta1"
KINDS = {
    "pipelines": ("pipeline_id", "v2beta1Pipeline"),
    "experiments": ("experiment_id", "v2beta1Experiment"),
    "runs": ("run_id", "v2beta1Run"),
    "recurringruns": ("recurring_run_id", "v2beta1RecurringRun"),
}
FIELDS = {"recurringruns": "recurringRuns", "versions": "pipeline_versions"}


@dataclass
class KfpServer(LoopbackServer):
    """swagger: the API's description, to check bodies against; problems: what it does not allow in those received.

    token: what a client must send.
    """

    swagger: dict[str, Any] | None = None
    token: str = ""
    multi_user: bool = False
    page_size: int = 100  # at most
    objects: dict[str, dict[str, dict[str, Any]]] = field(default_factory=lambda: {kind: {} for kind in KINDS})
    versions: dict[str, dict[str, Any]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    numbers: Any = field(default_factory=lambda: itertools.count(1))

    # What tests do to runs

    @property
    def runs(self) -> list[dict[str, Any]]:
        return list(self.objects["runs"].values())

    @property
    def schedules(self) -> list[dict[str, Any]]:
        return list(self.objects["recurringruns"].values())

    def advance(self, run: dict[str, Any], state: str, **tasks: str) -> None:
        """Set the state of a run and of its tasks (name -> state)."""
        with self.changed:
            details = run.setdefault("run_details", {"task_details": []})["task_details"]
            for name, task_state in tasks.items():
                _task(run, details, name)["state"] = task_state
            run["state"] = state
            if state in ("SUCCEEDED", "FAILED", "CANCELED"):
                run["finished_at"] = _now()

    def execute(self, run: dict[str, Any], root: Path) -> None:
        """Run the run's version, with its parameters, under KFP's local runner."""
        from kfp import components, local

        version = self.versions[run["pipeline_version_reference"]["pipeline_version_id"]]
        names = [task["taskInfo"]["name"] for task in version["pipeline_spec"]["root"]["dag"]["tasks"].values()]
        local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(root))
        self.advance(run, "RUNNING", **dict.fromkeys(names, "RUNNING"))
        try:
            components.load_component_from_text(version["text"])(**run["runtime_config"].get("parameters", {}))
        except RuntimeError as error:
            self.advance(run, "FAILED", **dict.fromkeys(names, "FAILED"))
            run["error"] = {"code": 13, "message": str(error)}
            return
        self.advance(run, "SUCCEEDED", **dict.fromkeys(names, "SUCCEEDED"))

    # The HTTP interface

    def respond(self, request: Request) -> tuple[int, Any]:
        if request.path == f"{API}/healthz":
            return 200, {"multi_user": self.multi_user}
        if self.token and request.headers.get("authorization") != f"Bearer {self.token}":
            return 401, self.failure(401, "Unauthorized")
        parts = request.path.removeprefix(f"{API}/").split("/")
        if parts[0] == "pipelines" and parts[1:2] in (["upload"], ["upload_version"]) and request.method == "POST":
            return self._upload(parts[1], request)
        if parts[0] == "pipelines" and len(parts) >= 3 and parts[2] == "versions":
            own = {key: item for key, item in self.versions.items() if item["pipeline_id"] == parts[1]}
            return self._read("versions", own, parts[3:], request)
        if parts[0] not in self.objects:
            return 404, self.failure(404, "Not Found")
        if request.method == "POST":
            return self._post(parts, request)
        if request.method == "DELETE":
            return self._delete(parts)
        return self._read(parts[0], self._visible(parts[0], request.query), parts[1:], request)

    def failure(self, code: int, message: str) -> dict[str, Any]:
        return {"code": code, "error": message, "message": message, "details": []}

    def _visible(self, kind: str, query: dict[str, str]) -> dict[str, dict[str, Any]]:
        experiment = query.get("experiment_id")
        return {k: v for k, v in self.objects[kind].items() if not experiment or v.get("experiment_id") == experiment}

    def _read(self, kind: str, items: dict[str, Any], rest: list[str], request: Request) -> tuple[int, Any]:
        if rest:
            if rest[0] in items:
                return 200, items[rest[0]]
            return 404, self.failure(404, f"{kind.removesuffix('s')} {rest[0]} not found")
        found = [item for item in items.values() if _fits(item, request.query.get("filter"))]
        if request.query.get("sort_by", "").endswith(" desc"):
            found.reverse()
        start = int(request.query.get("page_token") or 0)
        size = min(int(request.query.get("page_size") or 10), self.page_size)
        page = {FIELDS.get(kind, kind): found[start : start + size], "total_size": len(found)}
        if start + size < len(found):
            page["next_page_token"] = str(start + size)
        return 200, page

    def _post(self, parts: list[str], request: Request) -> tuple[int, Any]:
        kind = parts[0]
        if len(parts) == 2:
            key, _, action = parts[1].partition(":")
            return self._act(kind, key, action)
        body = json.loads(request.body)
        self._validate(KINDS[kind][1], body)
        if kind in ("pipelines", "experiments") and any(
            item["display_name"] == body["display_name"] for item in self.objects[kind].values()
        ):
            return 409, self.failure(409, f"{kind.removesuffix('s')} {body['display_name']} already exists")
        return 200, self._keep(kind, body)

    def _keep(self, kind: str, body: dict[str, Any]) -> dict[str, Any]:
        key = f"{kind.removesuffix('s')}-{next(self.numbers)}"
        item = {**body, KINDS[kind][0]: key, "created_at": _now()}
        if kind == "runs":
            item["state"] = "PENDING"
        if kind == "recurringruns":
            item["status"] = "ENABLED" if body.get("mode") == "ENABLE" else "DISABLED"
            item["max_concurrency"] = str(body["max_concurrency"])  # int64 as JSON has it
        self.objects[kind][key] = item
        return item

    def _act(self, kind: str, key: str, action: str) -> tuple[int, Any]:
        if key not in self.objects[kind]:
            return 404, self.failure(404, f"{kind.removesuffix('s')} {key} not found")
        item = self.objects[kind][key]
        if action == "terminate":
            item["state"] = "CANCELING"
        elif action in ("enable", "disable"):
            item["status"] = f"{action.upper()}D"
        else:
            return 404, self.failure(404, f"no action {action}")
        return 200, {}

    def _delete(self, parts: list[str]) -> tuple[int, Any]:
        if self.objects[parts[0]].pop(parts[1], None) is None:
            return 404, self.failure(404, f"{parts[1]} not found")
        return 200, {}

    def _upload(self, what: str, request: Request) -> tuple[int, Any]:
        text = _uploaded(request)
        documents = list(yaml.load_all(text, yaml.CSafeLoader))
        name, pipeline = request.query["name"], request.query.get("pipelineid", "")
        if what == "upload":
            if any(item["display_name"] == name for item in self.objects["pipelines"].values()):
                return 409, self.failure(409, f"pipeline {name} already exists")
            created = self._keep("pipelines", {"display_name": name, "name": name})
            pipeline = created["pipeline_id"]
        if any(v["pipeline_id"] == pipeline and v["display_name"] == name for v in self.versions.values()):
            return 409, self.failure(409, f"version {name} already exists")
        key = f"version-{next(self.numbers)}"
        version = {
            "pipeline_id": pipeline,
            "pipeline_version_id": key,
            "name": name,
            "display_name": name,
            "created_at": _now(),
            "pipeline_spec": documents[0],
        }
        self.versions[key] = {**version, "text": text}
        return 200, created if what == "upload" else version

    def _validate(self, definition: str, body: dict[str, Any]) -> None:
        """Note what the swagger does not allow in a body."""
        if self.swagger is None:
            return
        schema = {"$ref": f"#/definitions/{definition}", "definitions": _strict(self.swagger["definitions"])}
        for error in jsonschema.Draft202012Validator(schema).iter_errors(body):
            self.problems.append(f"{definition} {error.json_path}: {error.message}")


def _strict(definitions: Any) -> Any:
    """Without unknown fields; a 64-bit number may come as a number too, as Protobuf's JSON allows."""
    if isinstance(definitions, list):
        return [_strict(part) for part in definitions]
    if not isinstance(definitions, dict):
        return definitions
    strict = {key: _strict(part) for key, part in definitions.items()}
    if "properties" in strict and isinstance(strict["properties"], dict):
        strict.setdefault("additionalProperties", False)
    if strict.get("format") == "int64":
        strict["type"] = ["string", "integer"]
    return strict


def _task(run: dict[str, Any], details: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """The details of a task, created if missing."""
    for task in details:
        if task["display_name"] == name:
            return task
    details.append({"run_id": run["run_id"], "task_id": name, "display_name": name, "create_time": _now()})
    details[-1]["start_time"] = _now()
    return details[-1]


def _fits(item: dict[str, Any], text: str | None) -> bool:
    predicates = json.loads(text)["predicates"] if text else []
    assert all(predicate["operation"] in (1, "EQUALS") for predicate in predicates)
    return all(item.get(predicate["key"]) == predicate["stringValue"] for predicate in predicates)


def _uploaded(request: Request) -> str:
    """The file of a multipart form."""
    head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
    form = email.message_from_bytes(head + request.body, policy=email.policy.HTTP)
    part = next(part for part in form.iter_parts() if re.search('name="uploadfile"', part["Content-Disposition"]))
    return part.get_payload(decode=True).decode()


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
