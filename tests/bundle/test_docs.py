"""The page about specs runs: its YAML is a valid spec, its Python prints the shipped one."""

from __future__ import annotations

import pytest

from context_plane.bundle.spec import parse_spec
from tests.pages import ROOT, examples


def test_the_page_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    [spec] = examples("docs/specs.md", "yaml")
    [program] = examples("docs/specs.md", "python")
    assert parse_spec(spec.text.encode(), origin="specs.md").name == "renewal_v1"
    monkeypatch.chdir(ROOT)
    exec(compile(program.text, "docs/specs.md", "exec"), {})
    assert "customer_context_v0 200 tokens, 365 days" in capsys.readouterr().out
