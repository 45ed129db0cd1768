"""The documents cannot lag: every error code and every route must appear in them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest
from fastapi.routing import iter_route_contexts

from benchmarks.bars import over_http, shown
from context_plane.errors import CODES
from context_plane.layout.keys import ControlKey
from context_plane.settings import Settings
from serving import problems
from serving.app import create_app
from tests.pages import INDENTED, examples
from tests.serving.conftest import Served, serve

DOCS = Path(__file__).resolve().parent.parent / "docs"
API = DOCS / "api.md"
_ROW = re.compile(r"^\| `(\w+)` \| (\d{3}|–) \| (.+) \|$", re.MULTILINE)


def test_every_route_is_in_the_api_page() -> None:
    """Seen to fail with the row of `GET …/snapshot` removed."""
    text = API.read_text()
    paths = create_app(Settings(store="memory://docs")).openapi()["paths"]
    assert paths
    for path, operations in paths.items():
        for method in operations:
            shown = path.replace("/v1/tenants/{tenant}/", "…/")
            assert f"`{method.upper()} {shown}`" in text, (method, path)


def test_every_route_is_in_the_openapi_document() -> None:
    """But for the explorer's. Seen to fail with a route kept out of it."""
    app = create_app(Settings(store="memory://docs"))
    document = app.openapi()["paths"]
    known = [route for route in iter_route_contexts(app.routes) if (route.path or "").startswith("/v1/")]
    assert len(known) > 20
    for route in known:
        assert {method.lower() for method in route.methods or ()} <= set(document.get(route.path, ())), route.path


async def test_every_metric_is_in_the_api_page(tmp_path: Path) -> None:
    """And none that is gone. Seen to fail with a row removed, and with one too many."""
    async with serve(Settings(store=f"memory://{tmp_path.name}", cache_dir=tmp_path)) as served:
        text = (await served.client.get("/metrics")).text
    shown = set(re.findall(r"^# TYPE (context_plane_\w+) (?:counter|gauge|histogram)$", text, re.MULTILINE))
    shown = {name for name in shown if not name.endswith("_created")}
    assert len(shown) > 10
    assert shown == set(re.findall(r"^\| `(context_plane_\w+)` \|", API.read_text(), re.MULTILINE))


def test_the_key_of_a_mapping_is_the_one_that_landing_reads() -> None:
    """Seen to fail with no key named, and with another folder."""
    shown = (DOCS / "sources.md").read_text()
    for tenant, source in (("{tenant}", "{source}"), ("acme", "calls")):
        key = str(ControlKey("acme", "mappings/calls.yaml")).replace("acme", tenant).replace("calls", source)
        assert key in shown


def test_every_error_code_is_in_the_api_page_with_its_meaning_and_status() -> None:
    """Seen to fail with a row removed and with a status changed."""
    rows = {code: (status, meaning) for code, status, meaning in _ROW.findall(API.read_text())}
    assert rows.keys() == CODES.keys(), rows.keys() ^ CODES.keys()
    for code, (status, meaning) in rows.items():
        assert meaning == CODES[code].replace("|", r"\|"), code
        if code in problems.STATUSES:
            assert status == str(problems.STATUSES[code]), code


@pytest.mark.parametrize("page", sorted(DOCS.glob("**/*.md")), ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#\s]+)", page.read_text()):
        assert (page.parent / target).exists(), target


async def test_every_example_of_the_api_page_runs(tmp_path: Path) -> None:
    """Top to bottom, on a fresh store. Seen to fail with a field misspelt in an example."""
    blocks = examples("docs/api.md", "bash")
    commands = [line for block in blocks for line in block.text.replace("\\\n", " ").splitlines()]
    assert len(commands) > 10
    async with serve(Settings(store=f"memory://{tmp_path.name}", cache_dir=tmp_path)) as served:
        given: dict[str, str] = {}
        for command in commands:
            await _run(served, shlex.split(Template(command).substitute(given)), given)


async def test_the_fields_of_rates_are_those_that_a_key_of_the_page_gets(tmp_path: Path) -> None:
    """But for how many bytes are left. Seen to fail with another rate on the page."""
    [block] = examples("docs/api.md", INDENTED)
    policy, left = (line.partition(": ")[2] for line in block.text.splitlines())
    named = re.search(r"--requests-per-s (\d+) --bytes-per-s (\d+)", API.read_text())
    assert named is not None
    async with serve(Settings(store=f"memory://{tmp_path.name}", cache_dir=tmp_path)) as served:
        await served.create()
        key = await served.key("acme", "read", requests_per_s=float(named[1]), bytes_per_s=float(named[2]))
        fields = (await served.client.get(served.base, headers=key)).headers
    assert fields["ratelimit-policy"] == policy
    assert re.sub(r"r=\d{8};", "r=…;", fields["ratelimit"]) == re.sub(r"r=\d{8};", "r=…;", left)


async def _run(served: Served, words: list[str], given: dict[str, str]) -> None:
    """`curl` with -X, -H, -d, --data-binary; or a build. `given` takes what later commands name as variables."""
    if words[0] == "context-plane":
        assert words[1] == "build"
        options = dict(zip(words[2::2], words[3::2], strict=True))
        assert options["--since"] == options["--until"]
        await served.service.plane.build(options["--tenant"], [options["--since"]])
        return
    assert words.pop(0) == "curl"
    method, url, headers, body = None, "", {}, None
    while words:
        match words.pop(0):
            case "-X":
                method = words.pop(0)
            case "-H":
                name, _, value = words.pop(0).partition(": ")
                headers[name] = value
            case "-d" | "--data-binary":
                body = words.pop(0).encode()
            case word:
                assert urlsplit(word).scheme == "http", word
                url = word
    response = await served.client.request(method or ("POST" if body else "GET"), url, headers=headers, content=body)
    assert response.status_code < 300, (url, response.text)
    if "etag" in response.headers:
        given["DIGEST"] = response.headers["etag"].strip('"').removesuffix("-text")
    if "x-snapshot" in response.headers:
        given["SNAPSHOT"] = response.headers["x-snapshot"]
    if '"erasure"' in response.text:
        given["ERASURE"] = response.json()["erasure"]


LATENCIES = {
    "vector search, 10,000 rows of 64 dimensions": ("vector_warm", "vector"),
    "text search, 10,000 rows": ("text_warm", "text"),
    "hybrid search, 10,000 rows, from its text alone": ("hybrid_warm", "hybrid, from text"),
    "hybrid search of 500 entities and ten days, 100,000 rows": ("hybrid_filters", "hybrid, 500 entities, 10 days"),
    "ten thousand bundles in one answer": ("fleet", "10,000 entities, warm"),
    "cold: a bundle": ("bundle_cold", "bundle"),
    "cold: ten thousand bundles in one answer": ("fleet", "10,000 entities, cold"),
    "cold: hybrid search of an entity, 30 days": ("hybrid_cold", "from text"),
    "the same, 0.05 % of requests stalled for seconds": ("hybrid_cold", "from text, 0.05 % stalls"),
    "cold: hybrid search of an entity, a year": ("entity_cold", "365 days"),
}
"""Rows of the README's table, and the scenario and case of each."""


def test_the_figures_of_the_readme_are_those_of_the_committed_results() -> None:
    """Fails when a benchmark is run again and the table is not, or the other way round."""
    text = (DOCS.parent / "README.md").read_text()
    results = DOCS.parent / "benchmarks" / "results"

    def rows(scenario: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = orjson.loads((results / f"{scenario}.json").read_bytes())["rows"]
        return found

    quality = {(row["case"], row["system"]): row for row in rows("quality")}
    for system in ("bm25s_same_parameters", "text_without_threads", "text", "vector", "hybrid"):
        everywhere, held_out = quality["all", system], quality["held_out", system]
        figures = [everywhere["ndcg_at_10"], everywhere["hit_at_10"], held_out["ndcg_at_10"]]
        assert " | ".join(f"{figure:.3f}" for figure in figures) in text
    start = rows("startup")[0]
    assert f"{start['p50_ms']:.0f} ms (median; at most {start['max_ms']:.0f})" in text
    for label, (scenario, case) in LATENCIES.items():
        [row] = [row for row in rows(scenario) if row["case"] == case and over_http(row)]
        assert f"| {label} | {shown(row['p50_ms'])} | {shown(row['p99_ms'])} |" in text
