"""The explorer's files over HTTP: public, checked again by ETag, under a policy that runs nothing else."""

from __future__ import annotations

import re
from importlib import resources

from context_plane.settings import Settings
from serving import explorer
from tests.serving.conftest import Served, problem, serve

FOLDER = resources.files("serving") / "static"


async def test_every_file_is_served_with_its_type_and_the_policy(settings: Settings) -> None:
    """To whoever asks, also beyond loopback, where everything else wants a key."""
    async with serve(settings, loopback=False) as served:
        problem(await served.client.get("/v1/tenants"), 401, "key_missing")
        for file in FOLDER.iterdir():
            path = "/" if file.name == explorer.PAGE else f"/explorer/{file.name}"
            answer = await served.client.get(path)
            assert answer.status_code == 200, path
            assert answer.content == file.read_bytes()
            assert answer.headers["content-type"] == explorer.MEDIA_TYPES["." + file.name.rpartition(".")[2]]
            assert answer.headers["cache-control"] == "no-cache"
            assert answer.headers["content-security-policy"] == explorer.POLICY
            assert answer.headers["x-content-type-options"] == "nosniff"


async def test_a_file_that_did_not_change_is_not_sent_again(served: Served) -> None:
    """Seen to fail with the header compared as it is."""
    tag = (await served.client.get("/")).headers["etag"]
    for named in (tag, f"W/{tag}", f'"other", {tag}'):
        answer = await served.client.get("/", headers={"if-none-match": named})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag)
    assert (await served.client.get("/", headers={"if-none-match": '"other"'})).status_code == 200


async def test_nothing_but_its_files_is_served(served: Served) -> None:
    """Seen to fail with the page answered for what it does not know."""
    for name in ("nothing.js", "..%2Fapp.py", "%2E%2E%2Fapp.py", "index.html%2F..%2F..%2Fapp.py", ""):
        problem(await served.client.get(f"/explorer/{name}"), 404, "route_not_found")


def test_the_page_refers_to_its_own_files_alone() -> None:
    """No script, style, font or image of anybody else, and nothing inline, which the policy would refuse."""
    page = (FOLDER / explorer.PAGE).read_text()
    files = {file.name for file in FOLDER.iterdir()}
    for target in re.findall(r'(?:src|href)="([^"#?]+)', page):
        assert target == "docs" or target.removeprefix("explorer/") in files, target
    assert not re.search(r"<style|style=|\son\w+=|<script(?![^>]*\ssrc=)", page)
    for file in FOLDER.iterdir():
        text = file.read_text()
        assert not re.search(r"\b(?:https?:)?//(?!www\.w3\.org)[\w-]+\.\w", re.sub(r"^\s*//.*", "", text)), file.name
        for name in re.findall(r'from "\./([\w-]+\.js)"', text):
            assert name in files, (file.name, name)
