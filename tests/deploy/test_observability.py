"""The dashboard and the alerts ask for metrics that exist, under labels that they have."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from context_plane.settings import Settings
from tests.deploy.files import DEPLOY, document, documents, values_of
from tests.serving.conftest import event, serve

DASHBOARD: dict[str, Any] = orjson.loads((DEPLOY / "grafana" / "context-plane.json").read_bytes())
COLUMNS = 24
SELECTOR = re.compile(r"(context_plane_\w+)(?:\{([^}]*)\})?")
FUNCTIONS = {"sum", "max", "rate", "histogram_quantile", "by", "label_values", "le"}


def expressions() -> list[str]:
    return [*values_of(DASHBOARD, "expr"), *values_of(document("prometheus/alerts.yaml"), "expr")]


@pytest.fixture
async def exported(tmp_path: Path) -> dict[str, set[str]]:
    """Every sample that a service shows, with its labels. Each metric with labels was used once."""
    settings = Settings(store=f"memory://{tmp_path.name}", cache_dir=tmp_path)
    async with serve(settings) as served:
        await served.create()
        await served.write(event())
        await served.client.get("/nowhere")
        text = (await served.client.get("/metrics")).text
    found: dict[str, set[str]] = {}
    for name, labels in re.findall(r"^(context_plane_\w+?)(?:\{(.*)\})? ", text, re.MULTILINE):
        found.setdefault(name, set()).update(re.findall(r'(\w+)="', labels))
    return found


async def test_every_metric_and_label_asked_for_is_exported(exported: dict[str, set[str]]) -> None:
    """Seen to fail with a metric renamed, and with a label that it does not have."""
    asked = expressions()
    assert len(asked) > 20
    for expression in asked:
        selectors = SELECTOR.findall(expression)
        assert selectors, expression
        for name, matchers in selectors:
            assert name in exported, (name, expression)
            assert set(re.findall(r"(\w+)\s*[=!]~?\"", matchers)) <= exported[name], expression
        names = set().union(*(exported[name] for name, _ in selectors)) | {"instance"}
        for labels in re.findall(r"by \(([^)]*)\)", expression):
            assert {label.strip() for label in labels.split(",")} <= names, expression


def test_the_dashboard_shows_every_metric_of_the_service_or_says_why_not() -> None:
    """Seen to fail with a panel removed."""
    api = (DEPLOY.parent / "docs" / "api.md").read_text()
    documented = set(re.findall(r"^\| `(context_plane_\w+)` \|", api, re.MULTILINE))
    shown = {name for each in values_of(DASHBOARD, "expr") for name, _ in SELECTOR.findall(each)}
    shown = {re.sub("_(bucket|count|sum)$", "", name) for name in shown}
    beside = {"context_plane_cache_prefetches_total"}  # their bytes are shown
    assert documented - shown == beside


def test_expressions_are_balanced_and_know_their_functions() -> None:
    for expression in expressions():
        for opening, closing in ("()", "{}", "[]"):
            assert expression.count(opening) == expression.count(closing), expression
        assert set(re.findall(r"\b([a-z_]+)\s*\(", expression)) <= FUNCTIONS, expression


def panels() -> Iterator[dict[str, Any]]:
    yield from DASHBOARD["panels"]


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    """What Grafana needs of a dashboard: its schema is a program, so these are the rules that it breaks on."""
    ids = [panel["id"] for panel in panels()]
    assert len(ids) == len(set(ids))
    cells: set[tuple[int, int]] = set()
    for panel in panels():
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= COLUMNS
        own = set(itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])))
        assert not cells & own, panel["title"]
        cells |= own
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    assert variables == {"datasource", "route"}
    for uid in values_of(DASHBOARD, "uid"):
        assert uid in ("context-plane", "${datasource}")
    for panel in panels():
        if panel["type"] != "row":
            assert [target["refId"] for target in panel["targets"]] == sorted({t["refId"] for t in panel["targets"]})
            assert panel["title"]
    assert isinstance(DASHBOARD["schemaVersion"], int)


def test_alerts_say_what_to_do_and_prometheus_reads_them() -> None:
    (rules,) = [group["rules"] for group in document("prometheus/alerts.yaml")["groups"]]
    names = [rule["alert"] for rule in rules]
    assert len(names) == len(set(names))
    for rule in rules:
        assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
        assert re.fullmatch(r"\d+m", rule["for"])
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert set(rule["annotations"]) == {"summary", "action"}


def test_the_scrape_finds_the_pods_of_the_manifests() -> None:
    """Seen to fail with another component."""
    scrape = document("prometheus/scrape.yaml")
    assert scrape["rule_files"] == ["alerts.yaml"]
    (job,) = scrape["scrape_configs"]
    (relabel,) = job["relabel_configs"]
    (pods,) = [found for found in documents("kubernetes/read-service.yaml") if found["kind"] == "Deployment"]
    template = pods["spec"]["template"]
    labels, (container,) = template["metadata"]["labels"], template["spec"]["containers"]
    (port,) = [each["name"] for each in container["ports"]]
    named = [f"app.kubernetes.io/{name}" for name in ("name", "component")]
    meta = [f"__meta_kubernetes_pod_label_{re.sub('[^a-z]', '_', name)}" for name in named]
    assert relabel["source_labels"] == [*meta, "__meta_kubernetes_pod_container_port_name"]
    assert relabel["regex"] == ";".join([*(labels[name] for name in named), port])
    assert job["metrics_path"] == template["metadata"]["annotations"]["prometheus.io/path"]
