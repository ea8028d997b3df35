"""Dashboard and alert rules query exported metrics, in PromQL that promtool accepts, and the rules pass their tests."""

import importlib.util
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from waiting import LIMIT_S

from components.monitoring.metrics import METRICS, PREFIX

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "infra" / "observability"
TERRAFORM = (ROOT / "infra/terraform/modules/observability/main.tf").read_text(encoding="utf-8")
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text(encoding="utf-8"))
RULES = yaml.safe_load((FOLDER / "rules.yaml").read_text(encoding="utf-8"))
OURS = {PREFIX + name for name in METRICS}
# What else the platform exports, by exporter.
OTHERS = {
    "ray_node_gpus_utilization": "ray",
    "DCGM_FI_DEV_GPU_UTIL": "dcgm-exporter",
    "kube_pod_status_phase": "kube-prometheus-stack",
}
WORDS = {"by", "on", "and", "or", "unless", "ignoring", "without", "group_left", "group_right", "bool", "offset"}


def panel_queries() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def variable_queries() -> list[str]:
    return [v["query"]["query"] for v in DASHBOARD["templating"]["list"] if v["type"] == "query"]


def rule_queries() -> list[str]:
    return [rule["expr"] for group in RULES["groups"] for rule in group["rules"]]


def queried(query: str) -> set[str]:
    """The metrics named in a PromQL expression."""
    query = re.sub(r"label_values\((\w+), \w+\)", r"\1", query)
    query = re.sub(r"\{[^}]*\}|\[[^]]*\]|\"[^\"]*\"", " ", query)
    query = re.sub(r"\b(by|on|ignoring|without)\s*\([^)]*\)", " ", query)
    names = re.findall(r"\b[a-zA-Z_:][\w:]*\b(?!\s*\()", query)
    return set(names) - WORDS


def test_metrics_are_found_in_an_expression() -> None:
    query = 'sum by (a) (rate(one{b="three"}[5m])) / two > 0.5 unless on (c) four and time() - five < 7'
    assert queried(query) == {"one", "two", "four", "five"}


def test_what_is_queried_is_exported_and_what_is_exported_is_queried() -> None:
    queries = set().union(*map(queried, [*panel_queries(), *variable_queries(), *rule_queries()]))
    assert queries == OURS | set(OTHERS)


def test_ray_exports_the_utilisation_of_gpus() -> None:
    spec = importlib.util.find_spec("ray")
    assert spec
    assert spec.origin
    reporter = Path(spec.origin).parent / "dashboard/modules/reporter/reporter_agent.py"
    assert '"node_gpus_utilization": Gauge(' in reporter.read_text(encoding="utf-8")


@pytest.mark.parametrize("chart", sorted({chart for chart in OTHERS.values() if chart != "ray"}))
def test_terraform_installs_what_exports_the_others(chart: str) -> None:
    assert re.search(rf'^  chart\s+= "{chart}"$', TERRAFORM, re.MULTILINE)


def test_the_prefix_of_ray_is_dropped_from_our_metrics_alone() -> None:
    found = re.search(r'regex\s*= "(ray_[^"]+)"', TERRAFORM)
    assert found
    assert {re.fullmatch(found[1], f"ray_{name}")[1] for name in OURS} == OURS  # pyright: ignore[reportOptionalSubscript]
    assert not re.fullmatch(found[1], "ray_node_gpus_utilization")


def test_panels_are_complete() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["title"]
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
        assert all(target["legendFormat"] for target in panel["targets"])
    taken = [cell for panel in panels for cell in cells(panel["gridPos"])]
    assert len(set(taken)) == len(taken), "panels overlap"
    assert max(x for x, _ in taken) < 24


def cells(grid: dict[str, int]) -> Iterator[tuple[int, int]]:
    for x in range(grid["x"], grid["x"] + grid["w"]):
        for y in range(grid["y"], grid["y"] + grid["h"]):
            yield x, y


def test_every_alert_says_what_it_is_and_what_to_do() -> None:
    for group in RULES["groups"]:
        for rule in group["rules"]:
            assert rule["labels"]["severity"] in ("warning", "critical"), rule["alert"]
            assert {"summary", "description"} == rule["annotations"].keys(), rule["alert"]


def test_every_alert_is_tested() -> None:
    tests = yaml.safe_load((FOLDER / "rules_test.yaml").read_text(encoding="utf-8"))["tests"]
    raised = {trial["alertname"] for test in tests for trial in test["alert_rule_test"] if trial["exp_alerts"]}
    quiet = {trial["alertname"] for test in tests for trial in test["alert_rule_test"] if not trial["exp_alerts"]}
    alerts = {rule["alert"] for group in RULES["groups"] for rule in group["rules"]}
    assert raised == alerts
    assert quiet >= alerts - {"PodPendingTooLong"}  # whose test holds two series that stay quiet


def promtool(*words: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("promtool")
    if not program:
        pytest.skip("no promtool; apt-get install prometheus")
    return subprocess.run([program, *words], cwd=FOLDER, capture_output=True, text=True, timeout=LIMIT_S, check=False)


def test_the_rules_pass_their_tests() -> None:
    done = promtool("test", "rules", "rules_test.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_all_queries_are_promql(tmp_path: Path) -> None:
    """Those of the panels as recording rules, with Grafana's substitutions."""
    filled = [query.replace("$__rate_interval", "5m").replace("$model", ".*") for query in panel_queries()]
    recorded = [{"record": f"panel:{number}", "expr": query} for number, query in enumerate(filled)]
    document: dict[str, Any] = {"groups": [*RULES["groups"], {"name": "panels", "rules": recorded}]}
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    done = promtool("check", "rules", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rule_queries()) + len(recorded)} rules found" in done.stdout
