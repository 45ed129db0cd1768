"""Pictures of the explorer for the documentation: `python -m tests.browser.shots` writes docs/images/explorer-*.png.

The same invented customers each time, so a picture changes when the page does.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

from playwright.sync_api import Page, ViewportSize, expect, sync_playwright

from tests.browser.conftest import ARGUMENTS, WAIT_MS, chromium
from tests.browser.stage import TENANT, make_demo, served

IMAGES: Final = Path(__file__).resolve().parents[2] / "docs" / "images"
BYTES_MAX: Final = 250_000
"""Of one picture: whoever clones the repository fetches them all."""
DESKTOP: Final = ViewportSize(width=1440, height=900)
PHONE: Final = ViewportSize(width=390, height=844)


def shoot() -> list[Path]:
    """Write every picture; their paths."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="context-plane-") as name, sync_playwright() as playwright:
        folder = Path(name)
        demo = make_demo(folder, customers=100, days=45, hostile=False)
        browser = playwright.chromium.launch(executable_path=chromium(), args=list(ARGUMENTS))
        with served(demo.store, folder) as url:
            entity, tenant = f"{url}/#/{TENANT}/{demo.known}", f"{url}/#/{TENANT}"

            def page(scheme: str, size: ViewportSize, at: str) -> Page:
                context = browser.new_context(viewport=size, color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
                context.set_default_timeout(WAIT_MS)
                opened = context.new_page()
                opened.goto(at)
                _settle(opened)
                return opened

            made = [
                _take(_with_source(page("light", DESKTOP, entity)), "light"),
                _take(_with_point(page("dark", DESKTOP, entity)), "dark"),
                _take(_with_hits(page("light", DESKTOP, entity)), "search"),
                _take(page("light", DESKTOP, tenant), "tenant"),
                _take(page("light", PHONE, entity), "phone"),
            ]
        browser.close()
    return made


def _settle(page: Page) -> None:
    page.wait_for_load_state("networkidle")
    expect(page.locator(".waiting")).to_have_count(0, timeout=WAIT_MS)


def _with_source(page: Page) -> Page:
    page.locator(".facts").first.locator(".fact").last.click()
    _settle(page)
    page.mouse.move(0, 0)
    page.evaluate("scrollTo(0, 0)")
    return page


def _with_point(page: Page) -> Page:
    page.locator(".point.cited").nth(2).click()
    _settle(page)
    page.mouse.move(0, 0)
    return _scrolled(page, "#timeline-title")


def _with_hits(page: Page) -> Page:
    page.get_by_label("Search for").fill("price too high, wants a discount")
    page.get_by_label("In", exact=True).select_option("tenant")
    page.get_by_role("button", name="Search", exact=True).click()
    page.locator(".hit-text").first.click()
    _settle(page)
    return _scrolled(page, "#search-title")


def _scrolled(page: Page, to: str) -> Page:
    page.locator(to).evaluate("(node) => scrollTo(0, node.getBoundingClientRect().top + scrollY - 110)")
    return page


def _take(page: Page, name: str) -> Path:
    path = IMAGES / f"explorer-{name}.png"
    page.screenshot(path=path, animations="disabled")
    page.context.close()
    size = path.stat().st_size
    assert size <= BYTES_MAX, f"{path.name} has {size} bytes: show less"
    return path


if __name__ == "__main__":
    for written in shoot():
        print(written.relative_to(IMAGES.parents[1]), written.stat().st_size)
