"""The page about specs runs: its YAML is a valid spec, its Python prints the shipped one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from context_plane.bundle.spec import parse_spec

ROOT = Path(__file__).parents[2]


def test_the_page_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "specs.md").read_text()
    (spec,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert parse_spec(spec.encode(), origin="specs.md").name == "renewal_v1"
    monkeypatch.chdir(ROOT)
    exec(compile(program, "docs/specs.md", "exec"), {})
    assert "customer_context_v0 200 tokens, 365 days" in capsys.readouterr().out
