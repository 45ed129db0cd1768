"""Specs of a ConfigMap, in the form in which a node gives them to a pod: links to a folder that is exchanged whole."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from assets.definitions import build_definitions
from context_plane.settings import Settings
from tests.deploy.files import ROOT

SHIPPED: Final = "customer_context_v0"
NEW: Final = "renewal_v1"


def bring(mount: Path, version: int, specs: dict[str, str]) -> None:
    """What the map says now, by name of the spec, as the node's agent writes it."""
    folder = mount / f"..{version}"
    folder.mkdir(parents=True)
    for name, text in specs.items():
        (folder / f"{name}.yaml").write_text(text)
    (mount / "..data_tmp").symlink_to(folder.name)
    (mount / "..data_tmp").rename(mount / "..data")
    for link in mount.glob("*.yaml"):
        if link.stem not in specs:
            link.unlink()
    for name in specs:
        if not os.path.lexists(mount / f"{name}.yaml"):
            (mount / f"{name}.yaml").symlink_to(f"..data/{name}.yaml")


def test_loading_the_definitions_again_finds_what_the_map_says_now(tmp_path: Path) -> None:
    """Each spec once, though its file is there under two names. Seen to fail with files looked for at any depth."""
    text = (ROOT / "specs" / f"{SHIPPED}.yaml").read_text()
    settings = Settings(store=(tmp_path / "store").as_uri(), specs_dir=tmp_path / "specs")

    def bundles() -> set[str]:
        keys = build_definitions(settings).resolve_asset_graph().get_all_asset_keys()
        return {key.path[-1] for key in keys if key.path[0] == "bundles"}

    bring(tmp_path / "specs", 1, {SHIPPED: text})
    assert bundles() == {SHIPPED}
    added = text.replace(SHIPPED, NEW).replace("version: 0", "version: 1")
    bring(tmp_path / "specs", 2, {SHIPPED: text, NEW: added})
    assert bundles() == {SHIPPED, NEW}
    bring(tmp_path / "specs", 3, {NEW: added})
    assert bundles() == {NEW}
