"""The documentation site builds without a warning, and holds what is made from code and results."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import yaml

from context_plane.settings import Settings
from serving.app import create_app

ROOT: Final = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. Seen to fail with a link to a page that is not there."""
    target = tmp_path_factory.mktemp("site")
    mkdocs = Path(sys.executable).parent / "mkdocs"
    done = subprocess.run(
        [mkdocs, "build", "--strict", "--site-dir", target],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return target


def test_the_reference_has_every_operation(site: Path) -> None:
    page = (site / "reference.html").read_text()
    document = create_app(Settings(store="memory://site")).openapi()
    operations = [f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods]
    assert len(operations) > 10
    assert [each for each in operations if each not in page] == []


def test_the_reference_has_every_schema_and_header_where_its_name_leads(site: Path) -> None:
    """Fields of nested models too, with their examples; what errors are made of. Seen to fail with schemas left out,
    and with a name that is no link."""
    page = (site / "reference.html").read_text()
    document = create_app(Settings(store="memory://site")).openapi()
    anchors = re.findall(r'<a id="of-([^"]+)"></a>', page)
    schemas, headers = document["components"]["schemas"], document["components"]["headers"]
    assert sorted(anchors) == sorted([*schemas, *headers])
    led = set(re.findall(r'href="#of-([^"]+)"', page))
    assert led == {*_named(document)}
    assert {"HitOut", "CitationOut", "StatsOut", "TenantSettings", "Problem", "FaultOut", "ETag"} <= led
    for name in schemas:
        section = page.partition(f'<a id="of-{name}"></a>')[2].partition("<h3")[0]
        fields = schemas[name].get("properties", {})
        assert [field for field in fields if f"<code>{field}</code>" not in section] == [], name
    hit = page.partition('<a id="of-HitOut"></a>')[2].partition("<h3")[0]
    assert "<code>0.91</code>" in hit


def _named(value: object) -> Iterator[str]:
    """Names of the components that anything refers to."""
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"].rpartition("/")[2]
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _named(each)


def test_the_benchmarks_page_shows_its_plots(site: Path) -> None:
    page = (site / "benchmarks.html").read_text()
    plots = re.findall(r'src="(plots/[^"]+)"', page)
    assert plots
    assert all((site / plot).exists() for plot in plots)


def test_every_page_of_docs_is_in_the_menu() -> None:
    """But for decisions, which are reached from where they are named."""

    class Lenient(yaml.SafeLoader):
        """Reads the file past tags of Python."""

    Lenient.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: None)
    menu = set(re.findall(r"[\w-]+\.md", str(yaml.load((ROOT / "mkdocs.yml").read_text(), Lenient)["nav"])))
    assert {page.name for page in (ROOT / "docs").glob("*.md")} <= menu


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    """The pages work without a network."""
    for page in site.glob("*.html"):
        fetched = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?:[^"]+)"', page.read_text())
        assert [url for url in fetched if "canonical" not in url] == [], page.name
