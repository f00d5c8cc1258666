"""The annotation page as a person has it: a real server, a real browser, keys and mouse."""

import re
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.killer import finish, start

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
    "--autoplay-policy=no-user-gesture-required",
)
KEYS = {"first": "1", "second": "2", "tie": "0", "skip": "s"}
LONGEST_WAIT_MS = 120_000


@contextmanager
def open_browser() -> Iterator["Browser"]:
    """Chromium without a window; the test is skipped where it or playwright is missing."""
    library = pytest.importorskip(
        "playwright.sync_api", reason="needs playwright, of the dev extra"
    )
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"needs a browser on PATH ({', '.join(NAMES)}): apt-get install chromium")
    library.expect.set_options(timeout=LONGEST_WAIT_MS)
    with library.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def served(store: Path, audio: Path, *options: str) -> Iterator[str]:
    """The address of `aligncap prefer annotate`, which is stopped as a person would."""
    command = ["-m", "aligncap", "prefer", "annotate", store, "--audio-root", audio, "--port", 0]
    run = start(*command, *options)
    assert run.stdout
    said = run.stdout.readline()
    address = re.search(r"http://127\.0\.0\.1:\d+/", said)
    assert address, said or run.communicate()[1]
    yield address[0]
    run.send_signal(signal.SIGINT)
    finish(run)


@dataclass(frozen=True)
class Sitting:
    """A person before the page."""

    page: "Page"
    complaints: list[str]
    """What the browser's console has called an error."""

    def sign_in(self, address: str, name: str) -> None:
        self.page.goto(address)
        self.page.get_by_label("Your name").fill(name)
        self.page.keyboard.press("Enter")

    def captions(self) -> tuple[str, str]:
        """What stands on the left and on the right."""
        first, second = (
            self.page.locator(f"#{side} span").inner_text() for side in ("first", "second")
        )
        return first, second

    def has_done(self, done: int) -> None:
        """Waits until the page says so, and can be used again."""
        from playwright.sync_api import expect

        expect(self.page.locator("#who")).to_contain_text(f" {done} done,")
        self.until(lambda: not self.page.evaluate("busy"))

    def press(self, choice: str) -> None:
        self.page.keyboard.press(KEYS[choice])

    def click(self, choice: str) -> None:
        self.button(choice).click()

    def button(self, choice: str) -> "Locator":
        return self.page.locator(f"button[data-choice={choice}]")

    def sound(self, name: str) -> float:
        """A number or truth that the audio element tells of itself."""
        found = self.page.locator("#sound").evaluate(f"sound => sound.{name}")
        return float(found or 0)

    def hears(self) -> float:
        """Waits until the recording is being played; returns its length in seconds."""
        begun_s = self.sound("currentTime")
        self.until(lambda: not self.sound("paused") and self.sound("currentTime") > begun_s)
        assert self.sound("readyState") >= 2  # there is sound at the place that is played
        return self.sound("duration")

    def until(self, holds: Callable[[], bool]) -> None:
        """Waits for what cannot be waited for inside of the page: its policy forbids eval."""
        for _ in range(LONGEST_WAIT_MS // 20):
            if holds():
                return
            self.page.wait_for_timeout(20)
        raise AssertionError(f"waited for {LONGEST_WAIT_MS} ms in vain")


@contextmanager
def sitting(browser: "Browser", **options: object) -> Iterator[Sitting]:
    """A browser of one's own that remembers nothing, and what its console complains of."""
    context = browser.new_context(**options)  # type: ignore[arg-type]
    page = context.new_page()
    page.set_default_timeout(LONGEST_WAIT_MS)
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    try:
        yield Sitting(page, complaints)
    finally:
        context.close()
