"""The browser itself: it shows a page, and leaves no event loop behind."""

from __future__ import annotations

from playwright.sync_api import Page


def test_a_browser_shows_a_page(page: Page) -> None:
    page.set_content("<main>here</main>")
    assert page.inner_text("main") == "here"
