"""The Chromium of the system, without a window; where it is missing, a test is skipped."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
    "--autoplay-policy=no-user-gesture-required",
)
LONGEST_WAIT_MS = 120_000


@contextmanager
def open_browser(*flags: str) -> Iterator["Browser"]:
    """Chromium with these flags too."""
    library = pytest.importorskip(
        "playwright.sync_api", reason="needs playwright, of the dev extra"
    )
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"needs a browser on PATH ({', '.join(BROWSERS)}): apt-get install chromium")
    library.expect.set_options(timeout=LONGEST_WAIT_MS)
    with library.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=[*FLAGS, *flags])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: "Browser", **options: object) -> Iterator[tuple["Page", list[str]]]:
    """A page of a browser that remembers nothing, and what its console calls an error."""
    context = browser.new_context(**options)  # type: ignore[arg-type]
    page = context.new_page()
    page.set_default_timeout(LONGEST_WAIT_MS)
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    try:
        yield page, complaints
    finally:
        context.close()
