"""A real browser for every page that the product shows: Debian's or anyone's Chromium, driven by Playwright.

Playwright's synchronous API keeps an event loop running in the thread that uses it. So the browser lives as long as
this package's tests and no longer: tests elsewhere start loops of their own. Tests here are plain functions.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Final

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS: Final = ("--no-sandbox", "--disable-dev-shm-usage")
"""Containers run as root, which Chromium's sandbox refuses, and have a small /dev/shm."""
WAIT_MS: Final = 20_000
"""For whatever a test waits for: two cores that others use too."""


def chromium() -> str | None:
    """The path of a Chromium; None where there is none."""
    return next((path for path in map(shutil.which, NAMES) if path is not None), None)


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """A headless browser, started once. Nothing is downloaded."""
    path = chromium()
    if path is None:
        pytest.skip("Chromium is not installed")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield started
        started.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page in a context of its own: no storage, no cookies, a desktop's size."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(WAIT_MS)
    yield context.new_page()
    context.close()
